// What readers without a mouse or without sight need, where the theme and the widgets leave it out.

// Font Awesome writes the titles of the button that chooses light or dark into the button's text, where they
// contradict its name. Here they are still attributes: this comes before the theme's deferred scripts.
document.addEventListener("readystatechange", () => {
  if (document.readyState !== "interactive") return;
  for (const icon of document.querySelectorAll(".theme-switch[title]")) icon.removeAttribute("title");
  // The text of this button is "Search Ctrl + K"; a name that leaves out half of it cannot be spoken to it.
  document.querySelector(".search-button-field")?.removeAttribute("aria-label");
  // The book's name and the search stand outside every landmark.
  const sidebar = document.querySelector("#pst-primary-sidebar");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");
  makeSlidersSpeak();
  new ResizeObserver(letKeysScroll).observe(document.querySelector("main"));
});

// Paper is white: a reader of the dark page prints the light one.
let onScreen;
window.addEventListener("beforeprint", () => {
  onScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => { document.documentElement.dataset.theme = onScreen; });

// Of a slider the widgets tell a screen reader the index of the frame, and of its buttons nothing.
const BUTTONS = { "fa-play": "Play", "fa-pause": "Pause", "fa-stop": "Stop", "fa-retweet": "Repeat" };

function makeSlidersSpeak() {
  const describe = (element, name, text) => element.getAttribute(name) === text || element.setAttribute(name, text);
  const update = () => {
    for (const slider of document.querySelectorAll(".figure-slider:has(.noUi-handle)")) {
      const quantity = slider.querySelector(".widget-label").textContent || "frame";
      const readout = slider.querySelector(".widget-readout");
      const handle = slider.querySelector(".noUi-handle");
      describe(handle, "aria-label", quantity);
      describe(handle, "aria-valuetext", `${quantity} = ${readout.textContent}`);
      describe(readout, "role", "textbox");
      describe(readout, "aria-label", `${quantity}, to type`);
      for (const icon of slider.querySelectorAll(".widget-play button > i")) {
        const known = Object.keys(BUTTONS).find((name) => icon.classList.contains(name));
        describe(icon.parentElement, "aria-label", `${BUTTONS[known]}: ${quantity}`);
      }
    }
  };
  // Widgets are drawn late, and write their own values again whenever the slider moves.
  if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
    const changes = { attributeFilter: ["aria-valuetext", "class"], characterData: true, childList: true, subtree: true };
    new MutationObserver(update).observe(document.querySelector("main"), changes);
  }
}

// What is wider than the page scrolls; without a tab stop only a mouse or a finger can scroll it.
// It is called when the page's height or width changes: formulas are set, a cell is opened, a phone is turned.
function letKeysScroll() {
  for (const element of document.querySelectorAll("main :not(mjx-container *, svg *)")) {
    const wide = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
    if (!wide || element.tabIndex >= 0 || !/auto|scroll/.test(getComputedStyle(element).overflowX)) continue;
    element.tabIndex = 0;
    if (!element.hasAttribute("role")) element.setAttribute("role", "group");
    if (!element.hasAttribute("aria-label")) element.setAttribute("aria-label", "scrolls sideways");
  }
}
