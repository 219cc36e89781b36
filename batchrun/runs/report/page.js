"use strict";
(() => {
  const rows = [...document.querySelectorAll("details.row")];
  const filter = document.getElementById("filter");
  const found = document.getElementById("found");
  if (filter) {
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    filter.closest("p").hidden = false;
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !texts.get(row).includes(wanted);
        shown += !row.hidden;
      }
      found.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
    });
  }
  const open = () => {
    const row = location.hash ? document.getElementById(location.hash.slice(1)) : null;
    if (row && row.matches("details.row")) {
      row.hidden = false;
      row.open = true;
      row.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => rows.forEach((row) => { row.open = true; }));
})();
