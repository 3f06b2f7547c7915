/** Creates the page's elements. Text is always inserted as text, so that events cannot inject markup. */

type Child = Node | string;

/** Creates an element with attributes and children. */
export function createElement<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

/** Creates a section with a heading. */
export function createSection(title: string, name: string): { section: HTMLElement; body: HTMLElement } {
  const id = `${name}-title`;
  const body = createElement("div", { class: "body" });
  const created = createElement(
    "section",
    { class: name, "aria-labelledby": id },
    createElement("h2", { id }, title),
    body,
  );
  return { section: created, body };
}
