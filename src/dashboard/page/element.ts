/** Elements of the page. Texts are set as texts: nothing that a run told is ever taken for markup. */

type Child = Node | string;

/** An element with attributes, and what is in it. */
export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A part of the page with a heading. */
export function section(title: string, name: string): { section: HTMLElement; body: HTMLElement } {
  const id = `${name}-title`;
  const body = element("div", { class: "body" });
  const made = element("section", { class: name, "aria-labelledby": id }, element("h2", { id }, title), body);
  return { section: made, body };
}
