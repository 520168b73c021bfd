// Elements, without a framework.
//
// What comes from outside becomes text nodes and attribute values only: there is
// nothing here that takes markup.

const SVG = 'http://www.w3.org/2000/svg'
const SVG_TAGS = new Set(['svg', 'path', 'circle', 'line', 'g'])

// An element. `props`: attributes; `class`; `data` for data-*; `on` for listeners by
// event; properties where the element has one of that name, such as `value` or
// `disabled`. Left out is what is null, undefined or false.
export function h(tag, props, ...children) {
  const isSvg = SVG_TAGS.has(tag)
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener)
    } else if (name === 'data') {
      Object.assign(element.dataset, value)
    } else if (!isSvg && name in element && !name.includes('-') && name !== 'list') {
      element[name] = value
    } else {
      element.setAttribute(name === 'className' ? 'class' : name, value === true ? '' : value)
    }
  }
  append(element, children)
  return element
}

// Appends nodes and texts; lists of them are gone through.
export function append(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue
    element.append(child)
  }
  return element
}

// In place of what was in there.
export function fill(element, ...children) {
  element.replaceChildren()
  return append(element, children)
}

// Changes a text only where it is another one, so that a selection stays.
export function setText(element, text) {
  const now = String(text ?? '')
  if (element.textContent !== now) element.textContent = now
}

// An id that nothing else on the page has.
let ids = 0
export function uniqueId(prefix) {
  ids += 1
  return `${prefix}-${ids}`
}

// Calls `act` now and then again `ms` after it is done, until `signal` is aborted. Rests
// while nobody sees the page. What it throws is `failed`'s.
export function repeat(ms, signal, act, failed) {
  let timer
  let last = 0
  const turn = async () => {
    clearTimeout(timer)
    if (signal.aborted) return
    // Who is called meanwhile goes on in place of the one before.
    const own = (last += 1)
    if (!document.hidden) {
      try {
        await act()
      } catch (error) {
        if (!signal.aborted) failed?.(error)
      }
    }
    if (!signal.aborted && own === last) timer = setTimeout(turn, ms)
  }
  signal.addEventListener('abort', () => clearTimeout(timer))
  turn()
  return turn
}
