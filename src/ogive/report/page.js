"use strict";
(() => {
  const tips = JSON.parse(document.getElementById("ogive-data").textContent).tips;
  const tip = document.getElementById("tip");

  // Words for the mark that is pointed at or focused; always as text, never as markup.
  const show = (mark, x, y) => {
    tip.textContent = tips[mark.id];
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - width - 8)) + "px";
    tip.style.top = (y + 18 + height > innerHeight ? y - height - 12 : y + 18) + "px";
  };
  const hide = () => { tip.hidden = true; };
  for (const mark of document.querySelectorAll("svg .mark")) {
    if (!(mark.id in tips)) continue;
    mark.addEventListener("pointerenter", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointermove", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", hide);
    if (!mark.closest(".forest")) continue;
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", tips[mark.id]);
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      show(mark, box.left + box.width / 2, box.bottom - 12);
    });
    mark.addEventListener("blur", hide);
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Tables sort by the value of a column: numbers as numbers, cells without a value last.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? (cell.classList.contains("number") ? "" : cell.textContent);
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return 0;
    return Number.isFinite(+a) && Number.isFinite(+b) ? a - b : a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const first = table.tBodies[0].rows[0];
      if (first && first.cells[column].classList.contains("number")) head.classList.add("right");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (a === "") - (b === "") || (down ? compare(b, a) : compare(a, b)));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // Light or dark: the reader's system decides until the reader does.
  const theme = document.getElementById("theme");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (prefers.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = dark() ? "light" : "dark"; theme.setAttribute("aria-label", `Switch to ${theme.textContent} colours`); };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  prefers.addEventListener("change", label);
  theme.hidden = false;
  label();
})();
