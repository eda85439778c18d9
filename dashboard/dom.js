// Builds elements. Text always becomes text, never markup, so nothing that the API returns can run.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return a new element.
 *
 * @param {string} name the name of the element
 * @param {object} attributes its attributes. A function becomes a listener: `onclick` listens to
 *   `click`. true becomes an empty attribute. false, null and undefined leave the attribute out.
 * @param {...(Node|string|number|null)} children its content; null adds nothing
 */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Return a new SVG element. The arguments are those of `element`. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Replace the content of a node. */
export function replace(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null));
}

/** Tell people who use a screen reader what has happened. */
export function announce(text) {
  const line = document.getElementById("announcement");
  line.textContent = ""; // so that the same text is read out again
  setTimeout(() => { line.textContent = text; }, 50);
}

let ids = 0;

/** Return a label and its field, side by side. */
export function labelled(text, field) {
  field.id ||= `field-${++ids}`;
  return element("div", { class: "field" }, element("label", { for: field.id }, text), field);
}

/** Return a button. `onclick` is called on each click. */
export function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", onclick, ...attributes }, text);
}

/**
 * Return a choice between a few values, as a group of radio buttons.
 *
 * @param {string} legend what is chosen
 * @param {Array<[string, string]>} options the value and the text of each option
 * @param {string} chosen the value that is chosen first
 * @param {function(string)} onchange called with the new value
 */
export function choice(legend, options, chosen, onchange) {
  const name = `choice-${++ids}`;
  const radios = options.map(([value, text]) =>
    element("label", {}, element("input", {
      type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value),
    }), element("span", {}, text)));
  return element("fieldset", { class: "choice" },
    element("legend", { class: "visually-hidden" }, legend), ...radios);
}

/** Return a list of options. The arguments are those of `choice`. */
export function dropdown(options, chosen, onchange) {
  return element("select", { onchange: (event) => onchange(event.target.value) },
    ...options.map(([value, text]) =>
      element("option", { value, selected: value === chosen }, text)));
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(key, value);
    }
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
