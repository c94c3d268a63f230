// Elements, keyed lists and times. Whatever comes from outside becomes a text node, never markup.

/** `element("button", { class: "quiet", type: "button" }, "Cancel")`; a null or false attribute is left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export const find = (id) => document.getElementById(id);

/** Whether a click came from the keyboard: then the keyboard follows to what the click opens. */
export const byKeyboard = ({ detail }) => detail === 0;

/** Writes only what differs, so that a repaint of an unchanged page costs no layout. */
export function text(target, value) {
  const wanted = String(value);
  if (target.textContent !== wanted) target.textContent = wanted;
}

export function attribute(target, name, value) {
  if (value === null || value === false) target.removeAttribute(name);
  else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
}

export function className(target, value) {
  if (target.className !== value) target.className = value;
}

const rows = new WeakMap();

/** Makes the children of `parent` one per item, in order. Those that stay are never moved, so focus stays too. */
export function keyed(parent, items, keyOf, create, update) {
  const before = rows.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    after.set(key, before.get(key) ?? create(item));
  }
  for (const [key, row] of before) if (!after.has(key)) leave(row);
  let next = parent.firstElementChild;
  for (const item of items) {
    const row = after.get(keyOf(item));
    update(row, item);
    if (row === next) next = next.nextElementSibling;
    else parent.insertBefore(row, next);
  }
  rows.set(parent, after);
}

/** Removes a row. A keyboard that was in it goes on at the heading, rather than at the top of the page. */
function leave(row) {
  const section = row.contains(document.activeElement) && row.closest("section[aria-labelledby]");
  row.remove();
  if (section) rest(find(section.getAttribute("aria-labelledby")));
}

/** Gives the keyboard a place to go on from that is no stop of its own. */
export function rest(heading) {
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

// The server's clock: ages are right even where this machine's clock is not.
let skew = 0;
export const setClock = (time) => (skew = Date.parse(time) - Date.now());
const serverNow = () => Date.now() + skew;

/** 8 s, 3:05, 2:10:00, 3 d */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole >= 172_800) return `${Math.floor(whole / 86_400)} d`;
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export const since = (time) => span((serverNow() - Date.parse(time)) / 1000);

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
export const clock = (time) => CLOCK.format(new Date(time));

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const ARMED_MS = 4000;

/** A button that acts on its second click. The first one asks, in the button and to screen readers. */
export function confirmed(button, question, act) {
  let timer = 0;
  let busy = false;
  const label = button.textContent;
  const spoken = button.getAttribute("aria-label");
  const disarm = () => {
    clearTimeout(timer);
    document.removeEventListener("pointerdown", elsewhere);
    timer = 0;
    button.classList.remove("armed");
    button.textContent = label;
    attribute(button, "aria-label", spoken);
  };
  // Not every browser moves the focus to a clicked button, so a blur does not tell of every click elsewhere.
  const elsewhere = ({ target }) => button.contains(target) || disarm();
  button.addEventListener("click", async () => {
    // A disabled button would lose the keyboard.
    if (busy) return;
    if (!timer) {
      timer = setTimeout(disarm, ARMED_MS);
      document.addEventListener("pointerdown", elsewhere);
      button.classList.add("armed");
      button.textContent = question;
      attribute(button, "aria-label", spoken && `${spoken}: click again to confirm`);
      text(find("spoken"), "Click again to confirm.");
      return;
    }
    disarm();
    busy = true;
    await act();
    busy = false;
  });
  button.addEventListener("blur", () => timer && disarm());
  return button;
}
