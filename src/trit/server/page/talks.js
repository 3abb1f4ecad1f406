// The list of conversations, and what can be done with a whole one.

const { button, el, say, size, store } = trit;

trit.talks = {
  /**
   * The side with all conversations. `act`: shown() and writing() are conversations, open(talk) and
   * begin() change what is shown. Its draw() shows what there is now.
   */
  list(act) {
    const list = el("ul", { role: "list" });
    const room = el("p", { class: "room" });
    const file = el("input", {
      type: "file", accept: ".json,application/json", hidden: true, onchange: () => load(file, act),
    });
    const row = (talk) => el("li", {},
      button(talk.title || "Untitled", () => act.open(talk), {
        class: "quiet talk", "aria-current": talk.id === act.shown().id ? "true" : null,
      }),
      act.writing()?.id === talk.id ? el("span", { class: "writing" }, "writing") : null,
      button("×", () => remove(talk, act), {
        class: "quiet drop", "aria-label": `Delete ${talk.title}`, title: "Delete",
        disabled: act.writing()?.id === talk.id,
      }));
    const made = el("div", { class: "talks" },
      button("New conversation", act.begin, { class: "quiet begin" }), list, el("div", { class: "files" },
        button("Export as Markdown", () => save(act.shown(), "md")),
        button("Export as JSON", () => save(act.shown(), "json")),
        button("Import…", () => file.click()), file, room));
    made.draw = () => {
      const all = store.all();
      list.replaceChildren(...all.map(row));
      room.textContent = `${all.length} kept in this browser alone: ${size(store.used())} of ` +
        `${size(store.most)}.`;
    };
    return made;
  },
};

function save(talk, kind) {
  const name = (talk.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  if (kind === "md") trit.download(`${name}.md`, "text/markdown", store.markdown(talk));
  else trit.download(`${name}.json`, "application/json", store.json(talk));
}

async function load(file, act) {
  const [given] = file.files;
  file.value = "";
  try {
    if (given.size > store.most) throw new Error(`It has more than ${size(store.most)}.`);
    const talk = store.parse(await given.text());
    const problem = store.save(talk);
    act.open(talk);
    say(problem ?? "Imported");
  } catch (error) {
    trit.fail(new Error(`${given.name} is not imported. ${error.message}`), () => file.click());
  }
}

function remove(talk, act) {
  const dialog = el("dialog", { "aria-labelledby": "drop-title", onclose: () => dialog.remove() },
    el("form", { method: "dialog" },
      el("h2", { id: "drop-title" }, "Delete this conversation?"),
      el("p", {}, `“${talk.title}” is deleted from this browser, for good.`),
      el("menu", {}, el("button", { class: "quiet", value: "no" }, "Keep"),
        el("button", { class: "firm", value: "yes", onclick: () => {
          store.remove(talk);
          if (talk.id === act.shown().id) act.begin();
          else act.open(act.shown());
        } }, "Delete"))));
  document.body.append(dialog);
  dialog.showModal();
}
