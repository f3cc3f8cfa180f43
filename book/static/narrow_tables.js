// Tables on a phone. Without scripts, or on a wide page, all values are shown, and what is too wide scrolls.
window.addEventListener("DOMContentLoaded", () => {
  const phone = window.matchMedia("(max-width: 600px)");

  // A cell of five values is too tall to compare rows: show what was measured on the released networks first. The
  // buttons above the table bring back the rest.
  if (phone.matches) {
    for (const button of document.querySelectorAll('.choice input[value="measured"]')) {
      button.checked = true;
    }
  }

  // What is wider than the page becomes a list of rows, each value after the name of its column. Roles keep it a table
  // for a screen reader, which would take blocks for none.
  const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  const roleOf = (e) => ROLES[e.tagName] ?? (e.closest("thead") ? "columnheader" : "rowheader");

  function stack(box) {
    const table = box.querySelector("table");
    const columns = [...table.querySelectorAll("thead tr:last-child > *")].map((cell) => cell.textContent.trim());
    for (const row of table.tBodies[0]?.rows ?? []) {
      [...row.cells].forEach((cell, i) => { if (i && columns[i]) cell.dataset.column = columns[i]; });
    }
    for (const element of [table, ...table.querySelectorAll("thead, tbody, tr, th, td")]) {
      element.setAttribute("role", roleOf(element));
    }
    box.classList.add("stacked");
  }

  function fit() {
    for (const box of document.querySelectorAll("article :is(.comparison, .pst-scrollable-table-container)")) {
      const seen = box.clientWidth > 0;  // not in a folded cell
      if (!phone.matches) box.classList.remove("stacked");
      else if (seen && box.scrollWidth > box.clientWidth + 1) stack(box);
    }
  }

  fit();
  new ResizeObserver(fit).observe(document.querySelector("article"));  // formulas are set, cells opened, a phone turned
});
