// A table that shows its differences alone is a heat map: the share of each in the table's largest colours its cell.
window.addEventListener("DOMContentLoaded", () => {
  for (const choice of document.querySelectorAll('.choice:has(input[value="difference"])')) {
    const found = [...choice.nextElementSibling.querySelectorAll("td .difference")];
    const size = (e) => Math.abs(Number(e.textContent.replace("−", "-"))) || 0;
    const largest = Math.max(...found.map(size));
    for (const e of found) e.parentElement.style.setProperty("--share", (size(e) / largest).toFixed(3));
  }
});
