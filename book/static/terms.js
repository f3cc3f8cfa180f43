// Shows the definition of a term beside its first use on the page: under the mouse, at the keyboard's focus, at a tap.
// interp_lib/pages/terms.py marks the terms and puts their definitions behind the page's text.
document.addEventListener("DOMContentLoaded", () => {
  let open, leaving;

  function hide() {
    clearTimeout(leaving);
    if (open) open.definition.hidden = true;
    open = undefined;
  }

  function show(term, definition) {
    clearTimeout(leaving);
    if (open?.term === term) return;
    hide();
    open = { term, definition };
    definition.hidden = false;
    place();
  }

  // Below the term, or above it where there is no room; never beyond the window.
  function place() {
    if (!open) return;
    const { term, definition } = open;
    const [line] = term.getClientRects(), box = definition.getBoundingClientRect();
    const home = definition.offsetParent.getBoundingClientRect();
    const left = Math.max(8, Math.min(line.left, document.documentElement.clientWidth - box.width - 8));
    const below = line.bottom + 6 + box.height <= innerHeight || line.top < box.height + 6;
    definition.style.left = `${left - home.left}px`;
    definition.style.top = `${(below ? line.bottom + 6 : line.top - box.height - 6) - home.top}px`;
  }

  const terms = document.querySelectorAll("article .term");
  for (const term of terms) {
    const definition = document.getElementById(term.classList[1]);
    term.tabIndex = 0;
    term.setAttribute("role", "button");
    term.setAttribute("aria-describedby", definition.id);
    for (const event of ["mouseenter", "focus", "click"]) term.addEventListener(event, () => show(term, definition));
    term.addEventListener("blur", hide);
    term.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      if (open?.term === term) hide(); else show(term, definition);
    });
    for (const element of [term, definition]) {
      element.addEventListener("mouseleave", () => { leaving = setTimeout(hide, 250); });
    }
    definition.addEventListener("mouseenter", () => clearTimeout(leaving));
  }
  if (!terms.length) return;
  new ResizeObserver(place).observe(document.querySelector("article"));  // a picture above it is loaded
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("pointerdown", (event) => {
    if (open && !event.target.closest(".term, .term-definition")) hide();
  });
});
