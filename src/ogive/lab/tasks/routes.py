"""routes: in which part of the country is an airport? Its neighbours on the map of flights know."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections import Counter
from typing import ClassVar

import torch

from ogive.errors import DataError
from ogive.lab.keys import stream
from ogive.lab.tasks.files import packaged
from ogive.lab.tasks.nodes import SPLITS, Graph, NodeTask

MERIDIANS = (-115.0, -100.0, -85.0)
"""Between the four bands: fifteen degrees, one hour of the sun, apart."""
_SHARES = (0.4, 0.2, 0.4)
_NEEDS = "the graph of US air routes"
_KILOMETRES_PER_FOOT = 0.3048 / 1000


class Routes(NodeTask):
    """352 airports and the 6,022 flights between two of them; four bands of longitude to tell.

    An airport shows which airlines serve it (their shares of its routes), how many places it flies
    to, how high it lies and whether it is a large one, and nothing of where. A fixed shuffle splits
    the airports into those to train on (40 %), to validate on (20 %) and to test on (40 %): 141
    answers, so a difference of one answer is 0.7 %.

    Args:
        scored: which airports score a model, `test` or `validation`.

    Raises:
        DataError: bokeh_sampledata, which ships the tables, is not installed.
        UnknownName: an option that does not fit.
    """

    name = "routes"
    summary = "tell an airport's band of longitude from the graph of flights"
    source = (
        "OurAirports, and flights of July 2026 reported to the US Bureau of Transportation "
        "Statistics (public domain), as bokeh_sampledata ships them"
    )
    default_model: ClassVar = {
        "width": 32,
        "depth": 2,
        "heads": 4,
        "hidden": 64,
        "dropout": 0.3,
    }
    default_train: ClassVar = {
        "steps": 200,
        "batch": 64,
        "lr": 8e-3,
        "warmup": 20,
        "evaluations": 4,
    }
    quick_train: ClassVar = {"steps": 80, "evaluations": 1}
    learning_rates = (4e-3, 8e-3, 1.6e-2)

    def __init__(self, *, scored: str = "test") -> None:
        super().__init__(read_graph(), scored)


def read_graph() -> Graph:
    """The airports that some flight leaves or reaches, and the flights between them.

    Raises:
        DataError: bokeh_sampledata is not installed, or its tables are not those that are meant.
    """
    places = [
        packaged("bokeh_sampledata", "_data", name, needs=_NEEDS)
        for name in ("airports.csv", "routes.csv.gz")
    ]
    try:
        airports = list(csv.DictReader(io.StringIO(places[0].read_text("utf8"))))
        flights = gzip.decompress(places[1].read_bytes()).decode("utf8")
        return _graph(airports, list(csv.DictReader(io.StringIO(flights))))
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise DataError(f"{places[0].parent} cannot be read as {_NEEDS}: {error!r}") from None


def _graph(airports: list[dict[str, str]], flights: list[dict[str, str]]) -> Graph:
    routes = Counter((flight["SourceID"], flight["DestinationID"]) for flight in flights)
    served = {end for route in routes for end in route}
    known = [airport for airport in airports if airport["AirportID"] in served]
    number = {airport["AirportID"]: at for at, airport in enumerate(known)}
    if not routes:
        raise ValueError("no flight is in it")
    pairs = sorted((number[source], number[target]) for source, target in routes)
    airlines = sorted({flight["Airline"] for flight in flights})
    carried = torch.zeros(len(known), len(airlines))
    for flight in flights:
        for end in (flight["SourceID"], flight["DestinationID"]):
            carried[number[end], airlines.index(flight["Airline"])] += 1
    edge_index = torch.tensor(pairs).T.contiguous()
    reached = torch.bincount(edge_index[0], minlength=len(known)).float()
    own = [[_kilometres(airport), float(airport["Type"] == "large_airport")] for airport in known]
    x = [carried / carried.sum(1, keepdim=True), reached.log1p()[:, None], torch.tensor(own)]
    order = torch.randperm(len(known), generator=stream("routes", "split"))
    sizes = [round(share * len(known)) for share in _SHARES[:-1]]
    parts = order.split([*sizes, len(known) - sum(sizes)])
    return Graph(
        torch.cat(x, 1),
        edge_index,
        torch.tensor([_band(float(airport["Longitude"])) for airport in known]),
        dict(zip(SPLITS, parts, strict=True)),
        tuple(airport["IATA"] for airport in known),
    )


def _kilometres(airport: dict[str, str]) -> float:
    height = float(airport["Altitude"]) * _KILOMETRES_PER_FOOT
    if not math.isfinite(height):
        raise ValueError(f"{airport['IATA']} lies {airport['Altitude']!r} feet high")
    return height


def _band(longitude: float) -> int:
    """0 in the west … 3 in the east; beyond the date line is still west."""
    return sum((longitude - 360 if longitude > 0 else longitude) > line for line in MERIDIANS)
