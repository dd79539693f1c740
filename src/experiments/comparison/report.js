"use strict";
// Sorting: a click on a heading sorts by it, another turns the order round. Cells carry their value in data-key.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.key;
      const numeric = heading.classList.contains("number");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        if (!numeric) return key(a).localeCompare(key(b));
        const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
        return Number.isNaN(x) - Number.isNaN(y) || x - y;
      });
      if (down) rows.reverse();
      table.tBodies[0].append(...rows);
    });
  });
}
// The legend: a click brings out the lines of one configuration in all panels, another lets all be seen again.
const panels = document.querySelector(".panels");
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll(".legend button").forEach((other) => other.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", String(on));
    panels.classList.toggle("focus", on);
    for (const line of panels.querySelectorAll(".line")) {
      line.classList.toggle("on", on && line.dataset.series === button.dataset.series);
    }
  });
}
