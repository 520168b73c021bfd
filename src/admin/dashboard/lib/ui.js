// What pages are made of: tables, forms, dialogs, notes.

import { get, Problem } from './api.js'
import { append, fill, h, repeat, setText, uniqueId } from './dom.js'
import * as route from './route.js'

// ---- notes

const TOASTS_MAX = 3

// Says something that passes by; a screen reader says it too.
export function toast(text, kind = 'good') {
  const note = h('div', { className: `toast ${kind}` }, text)
  const notes = document.getElementById('toasts')
  notes.append(note)
  while (notes.childElementCount > TOASTS_MAX) notes.firstChild.remove()
  setTimeout(() => note.remove(), kind === 'bad' ? 10000 : 5000)
}

// What went wrong, as a sentence.
export function sentence(error) {
  if (error instanceof Problem) return [error.message, ...error.errors.map(String)].map(asSentence).join(' ')
  return error.isRefusal ? error.message : `This page made a mistake: ${error.message}`
}

// The API's begin and end like parts of one.
function asSentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.')
}

// Does what a click asks for; says so when it is done, and why when it is not.
export async function attempt(act, done) {
  try {
    const result = await act()
    if (done) toast(typeof done === 'function' ? done(result) : done)
    return result
  } catch (error) {
    if (error.name !== 'AbortError') toast(sentence(error), 'bad')
    return undefined
  }
}

// A place that tells of something that is wrong as long as it is.
export function trouble() {
  const element = h('p', { className: 'trouble', role: 'alert', hidden: true })
  return {
    element,
    set(error) {
      const text = error ? sentence(error) : ''
      setText(element, text)
      element.hidden = text === ''
    },
  }
}

// ---- pieces

export function badge(text, kind = '') {
  return h('span', { className: `badge ${kind}` }, text)
}

export function button(text, click, { kind = '', ...props } = {}) {
  return h('button', { type: 'button', className: kind, on: { click }, ...props }, text)
}

export function link(text, ...parts) {
  return h('a', { href: route.to(...parts) }, text)
}

// A part of a page, under a heading.
export function section(heading, ...children) {
  return panel({ heading }, ...children)
}

export function panel({ heading, actions = [], className = '', note }, ...children) {
  const id = uniqueId('heading')
  return h(
    'section',
    { className: `panel ${className}`, 'aria-labelledby': id },
    h('div', { className: 'panel-head' }, h('h2', { id }, heading), note && h('p', { className: 'note' }, note), h('div', { className: 'actions' }, actions)),
    children,
  )
}

// The head of a page. Its heading is what has the focus after a page was gone to.
export function pageHead(heading, { actions = [], marks = [], back } = {}) {
  return h(
    'div',
    { className: 'page-head' },
    back && h('p', { className: 'back' }, back),
    h('h1', { tabIndex: -1 }, heading),
    h('div', { className: 'marks' }, marks),
    h('div', { className: 'actions' }, actions),
  )
}

// Numbers beside each other. `all`: [key, label] or [key, label, kind].
export function tiles(all) {
  const values = new Map()
  const element = h(
    'dl',
    { className: 'tiles' },
    all.map(([key, label]) => {
      const number = h('dd', {}, '–')
      const tile = h('div', { className: 'tile' }, h('dt', {}, label), number)
      values.set(key, { number, tile })
      return tile
    }),
  )
  return {
    element,
    // Texts by key; `kinds`: those that stand out.
    set(texts, kinds = {}) {
      for (const [key, text] of Object.entries(texts)) {
        const { number, tile } = values.get(key)
        setText(number, text)
        tile.className = `tile ${kinds[key] ?? ''}`
      }
    },
  }
}

// Names and values, one below the other.
export function facts() {
  const element = h('dl', { className: 'facts' })
  const values = new Map()
  return {
    element,
    set(pairs) {
      for (const [name, text] of pairs) {
        let value = values.get(name)
        if (!value) {
          value = h('dd', {})
          values.set(name, value)
          element.append(h('div', {}, h('dt', {}, name), value))
        }
        if (text instanceof Node) fill(value, text)
        else setText(value, text)
      }
    },
  }
}

// ---- tables

// A table whose rows stay where they are while their texts change.
//
// `columns`: { head, text(row) | node(row), update(node, row), kind }, where `node`, an element or what
// has one as `element`, is made once for a row and may be brought up to date. `key(row)`: which row it is.
export function table({ caption, columns, key, empty = 'There is nothing.', showCaption = false }) {
  const body = h('tbody', {})
  const nothing = h('p', { className: 'empty', hidden: true }, empty)
  const id = uniqueId('table')
  const element = h(
    'div',
    { className: 'table-frame' },
    h(
      'div',
      { className: 'scroll', tabIndex: 0, role: 'region', 'aria-labelledby': id },
      h(
        'table',
        {},
        h('caption', { id, className: showCaption ? '' : 'hidden-text' }, caption),
        h(
          'thead',
          {},
          h('tr', {}, columns.map(({ head, kind = '', hiddenHead }) => h('th', { scope: 'col', className: kind }, hiddenHead ? h('span', { className: 'hidden-text' }, head) : head))),
        ),
        body,
      ),
    ),
    nothing,
  )
  const rows = new Map()

  const make = (row) => {
    const cells = columns.map((column, at) => {
      const cell = h(at === 0 ? 'th' : 'td', { className: column.kind ?? '' })
      if (at === 0) cell.scope = 'row'
      const node = column.node?.(row)
      if (node !== undefined) append(cell, node?.element ?? node)
      return { cell, node }
    })
    return { element: h('tr', {}, cells.map(({ cell }) => cell)), cells }
  }

  return {
    element,
    body,
    update(all) {
      const known = new Set()
      let place = body.firstChild
      for (const row of all) {
        const name = String(key(row))
        if (known.has(name)) continue
        known.add(name)
        let shown = rows.get(name)
        if (!shown) {
          shown = make(row)
          rows.set(name, shown)
        }
        columns.forEach((column, at) => {
          const { cell, node } = shown.cells[at]
          if (column.text) setText(cell, column.text(row))
          else column.update?.(node, row)
        })
        if (place === shown.element) place = place.nextSibling
        else body.insertBefore(shown.element, place)
      }
      for (const [name, shown] of rows) {
        if (known.has(name)) continue
        shown.element.remove()
        rows.delete(name)
      }
      nothing.hidden = all.length > 0
    },
  }
}

// A list of the API: filters, a table that is kept up to date, and its pages.
//
// `filters`: { name, label, placeholder, options }. What they say is part of the address.
export function listing({ parts, filters = [], fixed = {}, limit = 50, every = 3000, signal, got, ...how }) {
  const shown = table(how)
  const wrong = trouble()
  const before = []
  const query = () => {
    const said = Object.fromEntries(filters.map(({ name }) => [name, route.current().query.get(name) ?? '']))
    return { ...fixed, ...said, limit, after: route.current().query.get('after') ?? '' }
  }
  let next = null

  const inputs = filters.map(({ name, label, placeholder, options }) => {
    const props = { name, value: query()[name], on: { input: () => changed(name) } }
    const input = options
      ? select(options, props)
      : h('input', { type: 'search', placeholder: placeholder ?? '', autocomplete: 'off', spellcheck: false, ...props })
    return { name, input, element: h('label', { className: 'filter' }, h('span', {}, label), input) }
  })
  const changed = (name) => {
    const { input } = inputs.find((input) => input.name === name)
    route.say({ [name]: input.value, after: null })
    before.length = 0
    refresh()
  }

  const back = button('Previous', () => {
    route.say({ after: before.pop() || null })
    refresh()
  })
  const on = button('Next', () => {
    before.push(query().after)
    route.say({ after: next })
    refresh()
  })
  const first = button('First', () => {
    before.length = 0
    route.say({ after: null })
    refresh()
  })
  const pages = h('div', { className: 'pages', hidden: true }, first, back, on)

  let asking = null
  const refresh = async () => {
    asking?.abort()
    const own = (asking = new AbortController())
    const asked = query()
    try {
      const { items, next: after } = await get(parts, asked, AbortSignal.any([signal, own.signal]))
      next = after ?? null
      await got?.(items, asked)
      shown.update(items)
      wrong.set(null)
      on.disabled = next === null
      first.disabled = asked.after === ''
      back.disabled = before.length === 0
      pages.hidden = next === null && asked.after === ''
    } catch (error) {
      if (error.name !== 'AbortError') wrong.set(error)
    }
  }
  repeat(every, signal, refresh)

  const bar = inputs.length > 0 && h('div', { className: 'filters', role: 'search' }, inputs.map(({ element }) => element))
  return { element: h('div', { className: 'listing' }, bar, wrong.element, shown.element, pages), refresh }
}

// ---- forms

export function select(options, props = {}) {
  const { value, ...rest } = props
  const element = h(
    'select',
    rest,
    options.map((option) => {
      const [key, text] = Array.isArray(option) ? option : [option, option]
      return h('option', { value: key, selected: key === value }, text)
    }),
  )
  return element
}

// A field with its label. `type`: of an input; or `select` with `options`, `area`, `check`.
// `bad`: what is wrong with a value.
export function field({ name, label, type = 'text', value = '', hint, options, ...props }) {
  const id = uniqueId('field')
  const hintId = hint && `${id}-hint`
  const common = { id, name, 'aria-describedby': hintId, ...props }
  let input
  if (type === 'select') input = select(options, { value, ...common })
  else if (type === 'area') input = h('textarea', { rows: 3, spellcheck: false, value, ...common })
  else if (type === 'check') input = h('input', { type: 'checkbox', checked: Boolean(value), ...common })
  else input = h('input', { type, value, autocomplete: 'off', spellcheck: false, ...common })
  const texts = [h('label', { htmlFor: id }, label), hint && h('p', { id: hintId, className: 'hint' }, hint)]
  return h('div', { className: type === 'check' ? 'field check' : 'field' }, type === 'check' ? [input, texts] : [texts[0], input, texts[1]])
}

// What a form says, by name: numbers where it has fields for numbers (null: empty), true or
// false for boxes.
export function said(form) {
  const values = {}
  for (const input of form.elements) {
    if (!input.name) continue
    if (input.type === 'checkbox') values[input.name] = input.checked
    else if (input.type === 'radio') {
      if (input.checked) values[input.name] = input.value
    } else if (input.type === 'number') values[input.name] = input.value === '' ? null : input.valueAsNumber
    else values[input.name] = input.value
  }
  return values
}

// A form that does something. What goes wrong stands in it until the next try.
export function form({ fields, submit, act, kind = 'main', actions = [], className = '' }) {
  const wrong = trouble()
  const send = h('button', { type: 'submit', className: kind }, submit)
  const element = h(
    'form',
    {
      className: `form ${className}`,
      on: {
        submit: async (event) => {
          event.preventDefault()
          wrong.set(null)
          send.disabled = true
          try {
            await act(said(element), element)
          } catch (error) {
            if (error.name !== 'AbortError') wrong.set(error)
          } finally {
            send.disabled = false
          }
        },
      },
    },
    fields,
    wrong.element,
    h('div', { className: 'actions' }, send, actions),
  )
  return element
}

// ---- dialogs

// Asks before something is done. Resolves with what `act` gave when it is done, with undefined
// when it was called off. What goes wrong stands in the dialog.
//
// `act(values, tell)`: `tell` shows how far it is.
export function ask({ heading, text, fields = [], submit, kind = 'main', act }) {
  return new Promise((resolve) => {
    const id = uniqueId('dialog')
    const progress = h('p', { className: 'note', role: 'status' })
    let result
    const inner = form({
      fields: [fields, progress],
      submit,
      kind,
      act: async (values) => {
        result = await act(values, (text) => setText(progress, text))
        dialog.close()
      },
      actions: button('Cancel', () => dialog.close()),
    })
    const dialog = h(
      'dialog',
      {
        'aria-labelledby': id,
        on: {
          close: () => {
            dialog.remove()
            resolve(result)
          },
        },
      },
      h('h2', { id }, heading),
      [text].flat().map((text) => h('p', {}, text)),
      inner,
    )
    document.body.append(dialog)
    dialog.showModal()
    // What is dangerous is not what Enter does by itself.
    const first = dialog.querySelector(kind === 'danger' && fields.length === 0 ? '.actions button[type=button]' : 'input, select, textarea')
    first?.focus()
  })
}

// Shows something that is closed again.
export function show({ heading, wide = false }, ...children) {
  const id = uniqueId('dialog')
  const dialog = h(
    'dialog',
    { className: wide ? 'wide' : '', 'aria-labelledby': id, on: { close: () => dialog.remove() } },
    h('h2', { id }, heading),
    children,
    h('div', { className: 'actions' }, button('Close', () => dialog.close(), { autofocus: true })),
  )
  document.body.append(dialog)
  dialog.showModal()
  return dialog
}

// A payload, as it is shown anywhere; `note`: that it is not all of it.
export function payloadView(text, note) {
  return h('div', { className: 'payload' }, h('pre', { tabIndex: 0, 'aria-label': 'Payload' }, text), note && h('p', { className: 'note' }, note))
}
