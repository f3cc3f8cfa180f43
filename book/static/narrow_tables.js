// On a phone a cell of five values is too tall to compare rows: show what was measured on the released networks
// first. The buttons above the table bring back the rest. Without scripts, or on a wide page, all values are shown.
window.addEventListener("DOMContentLoaded", () => {
  if (window.matchMedia("(max-width: 600px)").matches) {
    for (const button of document.querySelectorAll('.choice input[value="measured"]')) {
      button.checked = true;
    }
  }
});
