// A page without Python: what a choice asks for is looked up among the answers that came with the page.
const fptPage = JSON.parse(document.getElementById("values").textContent, (_name, value) =>
  value && typeof value === "object" && typeof value.base64 === "string"
    ? new DataView(Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)).buffer)
    : value);

const fptModel = {
  values: fptPage.values,
  kept: fptPage.values.choice,
  told: fptPage.values.notice,
  listeners: {},
  changed: new Set(),
  get(name) { return this.values[name]; },
  set(name, value) { this.values[name] = value; this.changed.add(name); },
  on(event, call) { (this.listeners[event] ||= []).push(call); },
  off(event, call) { this.listeners[event] = (this.listeners[event] || []).filter((one) => one !== call); },
  tell(name) { for (const call of this.listeners[`change:${name}`] || []) call(); },
  send() {},
  save_changes() {
    const asked = this.changed.has("choice");
    for (const name of this.changed) this.tell(name);
    this.changed.clear();
    if (!asked) return;
    const found = Object.entries(fptPage.answers).map(([trait, { fields, table, optional }]) => {
      const answer = table[JSON.stringify(fields.map((name) => this.values.choice[name] ?? null))];
      return [trait, answer === undefined && optional ? null : answer];
    });
    const missing = found.some(([, answer]) => answer === undefined);
    if (missing) {  // what is shown stays, under its own name
      this.values.choice = this.kept;
      this.tell("choice");
    } else {
      this.kept = this.values.choice;
      for (const [trait, answer] of found) {
        if (answer !== this.values[trait]) { this.values[trait] = answer; this.tell(trait); }
      }
    }
    this.values.notice = missing
      ? "This page was saved without Python and does not hold what you chose: open the notebook for it." : this.told;
    this.tell("notice");
    this.values.answered = (this.values.answered || 0) + 1;
    this.tell("answered");
  },
};
fptWidget.render({ model: fptModel, el: document.getElementById("widget") });
