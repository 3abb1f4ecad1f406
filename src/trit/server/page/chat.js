// The chat: conversations at the side, the one that is shown, the field to write in, the settings.

const { button, el, human, kept, models, number, say, settings, size, store, talks, tree } = trit;
const STATES = {
  loaded: "What you write goes to this server and nowhere else.",
  loading: "It is being loaded…",
  unloaded: "It is loaded with your first message.",
};
const WIDE = matchMedia("(min-width: 60rem)");

let talk = null;     // the conversation that is shown
let running = null;  // the answer that is being written, of this conversation or another
let view = null;     // the elements, once the view is open
let said = 0;        // characters of the running answer that a screen reader was given

trit.view({
  name: "chat",
  title: "Chat",
  open(section) {
    view = build(section);
    talk = store.load(kept.get("trit.shown")) ?? tree.create();
    lay();
    draw();
    listen();
  },
  show() {
    const keyboard = !matchMedia("(pointer: coarse)").matches;  // which else would come up
    if (keyboard) view.field.focus({ preventScroll: true });
  },
});

function build(section) {
  const list = talks.list({ shown: () => talk, writing: () => running?.talk, open, begin });
  let pause = null;
  const form = settings.form(() => talk, () => {
    clearTimeout(pause);
    pause = setTimeout(keep, 300, talk);
  });
  const made = {
    section, list, form,
    title: el("h1"),
    messages: el("ol", { role: "list" }),
    greeting: el("div", { class: "greeting" }),
    heard: el("div", { class: "unseen", role: "log", "aria-label": "Answers" }),
    field: el("textarea", { rows: 1, "aria-label": "Message", placeholder: "Write a message" }),
    send: button("Send", () => (running ? stop() : submit()), { class: "firm" }),
    gauge: el("div", { class: "gauge" }),
    lost: el("p", { class: "failure", role: "alert", hidden: true }),
  };
  made.side = aside("talks", "Conversations", list);
  made.more = aside("settings", "Settings", form);
  made.scroll = el("div", {
    class: "scroll", tabIndex: 0, role: "region", "aria-label": "Messages",
  }, made.greeting, made.messages, made.lost);
  made.sideButton = button("Conversations", null, { class: "quiet narrow" });
  made.sideButton.popoverTargetElement = made.side;
  made.moreButton = button("Settings", toggleSettings, { "aria-controls": "settings" });
  made.moreButton.popoverTargetElement = made.more;
  made.composer = el("div", { class: "composer" },
    el("div", { class: "box" }, made.field, made.send), made.gauge);
  made.fit = trit.grow(made.field);
  section.append(made.side,
    el("div", { class: "column" },
      el("div", { class: "bar" }, made.sideButton, models.chooser(), made.title, made.moreButton),
      made.scroll, made.composer, made.heard),
    made.more);
  return made;
}

/** A side; where it is over the rest, it has a head and a way out. */
function aside(id, title, content) {
  const made = el("aside", { id, "aria-label": title },
    el("div", { class: "head" }, el("h2", {}, title),
      button("×", () => made.hidePopover(), { "aria-label": "Close" })), content);
  return made;
}

function listen() {
  trit.sends(view.field, submit);
  view.field.addEventListener("input", () => kept.set("trit.draft", view.field.value));
  view.field.value = kept.get("trit.draft") ?? "";
  view.field.addEventListener("keydown", (event) => {
    const last = [...view.messages.querySelectorAll('[data-act="edit"]')].at(-1);
    if (event.key !== "ArrowUp" || view.field.value !== "" || !last) return;
    event.preventDefault();
    last.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) stop();
    if (event.altKey && event.code === "KeyN") {
      event.preventDefault();
      begin();
    }
  });
  WIDE.addEventListener("change", lay);
  trit.on("models", () => { view.form.show(); greet(); gauge(); });
  addEventListener("pagehide", () => {
    if (!running) return;
    running.node.finish = "lost";
    store.save(running.talk);
  });
  addEventListener("storage", (event) => {  // another tab has written
    view.list.draw();
    if (event.key === `trit.talk.${talk.id}` && !running) {
      talk = store.load(talk.id) ?? talk;
      draw();
    }
  });
  trit.key("Enter", "send the message");
  trit.key("Shift Enter", "a new line");
  trit.key("Esc", "stop the answer");
  trit.key("↑", "in the empty field: edit your last message");
  trit.key("Alt N", "a new conversation");
}

/** Sides stand beside the conversation where there is room, else they come over it. */
function lay() {
  for (const side of [view.side, view.more]) side.popover = WIDE.matches ? null : "auto";
  view.more.hidden = WIDE.matches && kept.get("trit.settings") !== "open";
  if (WIDE.matches) view.moreButton.setAttribute("aria-expanded", String(!view.more.hidden));
  else view.moreButton.removeAttribute("aria-expanded");  // the browser knows of popovers
}

function toggleSettings() {
  if (!WIDE.matches) return;  // then it is the button's popover
  kept.set("trit.settings", view.more.hidden ? "open" : "closed");
  lay();
}

function begin() {
  view.field.focus();  // first: what is in a field that has the focus is left as it is
  open(tree.create(talk));
}

function open(other) {
  if (other.id !== talk.id) talk = running?.talk.id === other.id ? running.talk : other;
  kept.set("trit.shown", talk.id);
  if (view.side.matches(":popover-open")) view.side.hidePopover();
  draw();
  end();
}

/** Keep a conversation that has begun; say so if there is no room. */
function keep(which = talk) {
  if (which.nodes.length === 0) return;
  const problem = store.save(which);
  view.lost.hidden = problem === null;
  view.lost.textContent = problem ?? "";
  view.list.draw();
}

function draw() {
  const active = view.messages.contains(document.activeElement) ? document.activeElement : null;
  const act = active?.dataset.act;
  const row = [...view.messages.children].findIndex((each) => each.contains(active));
  const top = view.scroll.scrollTop;
  const places = tree.path(talk);
  const item = (at) => {
    const busy = running?.talk === talk && running.at === at;
    const made = trit.message(talk, at, busy, running === null, { again, edit, choose });
    if (busy) running.shown = made;
    return el("li", {}, made);
  };
  view.messages.replaceChildren(...places.map(item));
  view.title.textContent = talk.title || "New conversation";
  view.send.textContent = running ? "Stop" : "Send";
  view.form.show();
  view.list.draw();
  greet();
  gauge();
  view.scroll.scrollTop = top;
  if (act) refocus(view.messages.children[row], act);
}

/** A key's user stays where he was, though the buttons are new ones. */
function refocus(row, act) {
  const found = [...(row?.querySelectorAll(`[data-act="${act}"]`) ?? [])].find((b) => !b.disabled);
  (found ?? row?.querySelector("button:not(:disabled)") ?? view.field).focus();
}

function end() {
  view.scroll.scrollTop = view.scroll.scrollHeight;
}

/** What stands where there are no messages yet. */
function greet() {
  view.greeting.hidden = talk.nodes.length > 0;
  const model = models.current();
  if (view.greeting.hidden || !model) return;
  const facts = el("p");
  models.card(model.id).then((card) => {
    facts.textContent = `${human(card.parameters)} parameters in ${size(card.tensor_bytes)}: ` +
      `${number(card.bits_per_weight)} bits each`;
  }, () => {});  // the card's own view says why there is none
  view.greeting.replaceChildren(el("p", { class: "hello" }, model.id), facts,
    el("p", {}, STATES[model.state]));
}

/** How much of the context the shown branch has taken. */
function gauge() {
  const meta = models.current()?.meta;
  const last = tree.path(talk).map((at) => talk.nodes[at].stats).findLast((stats) => stats);
  const used = running?.talk === talk ? running.used() : last?.context ?? 0;
  if (!meta) return view.gauge.replaceChildren();
  const part = Math.min(1, used / meta.n_ctx);
  const bar = el("span", { class: "meter" }, el("span"));
  bar.firstChild.style.width = `${100 * part}%`;
  bar.classList.toggle("full", part > 0.9);
  view.gauge.replaceChildren(bar, el("span", {},
    `${used.toLocaleString("en")} of ${meta.n_ctx.toLocaleString("en")} tokens of context`));
}

// What a person does.

function submit() {
  const text = view.field.value;
  if (running || !text.trim()) return;
  view.field.value = "";
  kept.remove("trit.draft");
  view.fit();
  ask(tree.leaf(talk), text);
}

function ask(parent, text) {
  const at = tree.add(talk, parent, { role: "user", content: text });
  talk.title ||= text.trim().replace(/\s+/g, " ").slice(0, 60);
  kept.set("trit.shown", talk.id);
  answer(at);
}

function edit(at, text) {
  if (running) return false;
  ask(talk.nodes[at].parent, text);
  return true;
}

function again(at) {
  const { parent, content, error } = talk.nodes[at];
  if (error && !content) answer(parent, at);
  else answer(parent);
}

function choose(at) {
  tree.choose(talk, at);
  keep();
  draw();
}

function stop() { running?.controller.abort(); }

/** Have the message at `parent` answered; in the place of `at`, an answer that failed, if given. */
async function answer(parent, at = null) {
  const node = { role: "assistant", content: "", model: models.chosen };
  if (at === null) at = tree.add(talk, parent, node);
  else talk.nodes[at] = { ...node, parent, next: null };
  said = 0;
  running = trit.answer(talk, at, advance);
  keep();
  draw();
  end();
  say("The model reads your message");
  await running.done;
  const ended = running;
  running = null;
  ended.talk.changed = Date.now();
  keep(ended.talk);
  if (ended.talk === talk) {
    hear(ended.node.content, true);
    draw();
  } else view.list.draw();
  say(ended.node.error ?? `The answer has ended: ${trit.took(ended.node.stats ?? { tokens: 0 })}`);
  models.refresh().catch(() => {});
}

/** Show what has come. */
function advance(state) {
  if (running.talk !== talk || !running.shown) return;
  const { scroll } = view;
  const follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  running.shown.update(state);
  gauge();
  if (follows) end();
  hear(running.node.content, false);
}

/** Let a screen reader say whole paragraphs, as they come. */
function hear(text, all) {
  if (said > text.length) said = 0;
  const upto = all ? text.length : text.lastIndexOf("\n\n");
  if (upto > said) view.heard.append(el("p", {}, text.slice(said, upto)));
  said = all ? 0 : Math.max(said, upto);
  if (all) setTimeout(() => view.heard.replaceChildren(), 5000);
}
