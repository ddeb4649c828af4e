"""A trainer's module that ends the process which imports it."""

import os

print("cannot even start", flush=True)
os._exit(9)
