// Runs in <head>, before the theme's deferred scripts and before any widget is drawn.

// The theme's Font Awesome swaps every icon element for an <svg>, also those that appear later, and so takes away
// the elements that the Play widget changes: it would stop working, and every slider linked to it. Without the
// watch it draws the theme's icons once, and the widgets' icons stay what they are.
window.FontAwesomeConfig = { observeMutations: false };

// The widgets ask for MathJax 2's queue to typeset their labels; the book has MathJax 3. Labels are plain
// Unicode, so there is nothing to typeset. Registered here, this runs before the widgets' own load listener.
window.addEventListener("load", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    window.MathJax.Hub = { Queue() {} };
  }
});
