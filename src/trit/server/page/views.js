// The frame: views and the navigation between them, the model in use, colours, the list of keys.

const { el, get, say } = trit;
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
  if (asked === "main") return document.getElementById("main").focus();
  const chosen = views.get(asked) ?? views.values().next().value;
  if (!chosen) return;
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

// What went wrong with the page as a whole: said above the view, until it is tried again.

const trouble = document.getElementById("trouble");

/** Say in words that something failed; `again` is what the button tries. */
trit.fail = (error, again) => {
  const retry = el("button", { type: "button", class: "quiet", onclick: () => {
    trouble.hidden = true;
    again();
  } }, "Try again");
  trouble.replaceChildren(el("p", {}, error.message), retry);
  trouble.hidden = false;
};

// Models. `chosen` is the name that requests give; `list` is as /v1/models has it.

trit.models = { list: [], chosen: null };

/** Ask the server for its models; tells "models". Throws Refusal. */
trit.models.refresh = async () => {
  const { data } = await get("/v1/models");
  const names = data.map((model) => model.id);
  trit.models.list = data;
  if (!names.includes(trit.models.chosen)) trit.models.chosen = names[0];
  const select = document.getElementById("model");
  select.replaceChildren(...data.map((model) => el("option", {
    value: model.id, selected: model.id === trit.models.chosen,
  }, model.state === "loaded" ? model.id : `${model.id} (${model.state})`)));
  document.getElementById("chooser").hidden = false;
  trit.tell("models");
};

/** The chosen model as /v1/models has it; null before the first answer. */
trit.models.current = () =>
  trit.models.list.find((model) => model.id === trit.models.chosen) ?? null;

document.getElementById("model").onchange = (event) => {
  trit.models.chosen = event.target.value;
  trit.tell("models");
};

// Colours: the system's, or one's own choice, kept in this browser.

const THEMES = { system: "light dark", light: "light", dark: "dark" };
const theme = document.getElementById("theme");
let colours = localStorage.getItem("trit.colours") ?? "system";

function paint() {
  document.documentElement.style.colorScheme = THEMES[colours] ?? THEMES.system;
  theme.textContent = { system: "Auto", light: "Light", dark: "Dark" }[colours];
  theme.setAttribute("aria-label", `Colours: ${colours}`);
}

theme.onclick = () => {
  const names = Object.keys(THEMES);
  colours = names[(names.indexOf(colours) + 1) % names.length];
  localStorage.setItem("trit.colours", colours);
  paint();
  say(`Colours: ${colours}`);
};

// The list of keys. A view adds its own: trit.key("Esc", "stop the answer").

trit.key = (keys, what) => document.getElementById("help-keys").append(
  el("dt", {}, keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, what));

const help = document.getElementById("help");
document.getElementById("help-button").onclick = () => help.showModal();
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "?" && !typing && !document.querySelector("dialog[open]")) help.showModal();
});

function start() {
  trit.models.refresh().catch((error) => trit.fail(error, start));
}

paint();
addEventListener("hashchange", show);
addEventListener("load", () => {  // when every view is registered
  trit.key("?", "this list");
  show();
  if (paths.includes("/v1/models")) start();
});
