// The frame: views and the navigation between them, trouble, colours, the list of keys.

const { button, el, kept, say } = trit;
const views = new Map();
const paths = document.querySelector('meta[name="paths"]').content.split(" ");

/** Register a view; index.html says how. One whose part of the API is absent is not shown. */
trit.view = (view) => {
  if (view.needs && !paths.some((path) => path.startsWith(view.needs))) return;
  const link = el("a", { href: `#${view.name}` }, view.title);
  const section = el("section", {
    id: `view-${view.name}`, class: `view ${view.name}`, hidden: true, "aria-label": view.title,
  });
  views.set(view.name, { ...view, link, section, opened: false });
  document.getElementById("views").append(el("li", {}, link));
  document.getElementById("main").append(section);
};

function show() {
  const asked = location.hash.slice(1);
  const chosen = views.get(asked) ?? views.values().next().value;
  for (const view of views.values()) {
    view.section.hidden = view !== chosen;
    if (view === chosen) view.link.setAttribute("aria-current", "page");
    else view.link.removeAttribute("aria-current");
  }
  document.title = `${chosen.title} · trit`;
  if (!chosen.opened) chosen.open(chosen.section);
  chosen.opened = true;
  chosen.show?.();
}

document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();  // the address names the view
  document.getElementById("main").focus();
};

// What went wrong with the page as a whole: said above the view, until it is tried again.

const trouble = document.getElementById("trouble");

/** Say in words that something failed; `again` is what the button tries. */
trit.fail = (error, again) => {
  const retry = button("Try again", () => {
    trouble.hidden = true;
    again();
  });
  trouble.replaceChildren(el("p", {}, error.message), retry);
  trouble.hidden = false;
};

// Colours: the system's, or one's own choice, kept in this browser.

const SCHEMES = { system: "light dark", light: "light", dark: "dark" };
const SIGNS = { system: "◐", light: "○", dark: "●" };
const colours = document.getElementById("colours");
let scheme = kept.get("trit.colours") in SCHEMES ? kept.get("trit.colours") : "system";

function paint() {
  document.documentElement.style.colorScheme = SCHEMES[scheme];
  colours.replaceChildren(el("span", { "aria-hidden": "true" }, SIGNS[scheme]),
    el("span", { class: "unseen" }, `Colours: ${scheme}`));
  colours.title = `Colours: ${scheme}`;
}

colours.onclick = () => {
  const names = Object.keys(SCHEMES);
  scheme = names[(names.indexOf(scheme) + 1) % names.length];
  kept.set("trit.colours", scheme);
  paint();
  say(`Colours: ${scheme}`);
};

// The list of keys. None is a single letter, which would be in the way of who speaks to the page.

const help = document.getElementById("help");

/** Name a key of a view: trit.key("Esc", "stop the answer"). */
trit.key = (keys, what) => document.getElementById("help-keys").append(
  el("dt", {}, keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, what));

document.getElementById("help-button").onclick = () => help.showModal();
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.ctrlKey && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    help.showModal();
  }
});

/** Called by the last script, when every view is registered. */
trit.start = () => {
  trit.key("Ctrl /", "this list");
  addEventListener("hashchange", show);
  paint();
  show();
  const ask = () => trit.models.refresh().catch((error) => trit.fail(error, ask));
  ask();
};
