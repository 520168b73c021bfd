// The configuration that holds, and who may use this dashboard.

import { get, may, patch, post, remove, session } from '../lib/api.js'
import { fill, h } from '../lib/dom.js'
import { moment, NOTHING, value } from '../lib/format.js'
import { ask, badge, button, field, listing, pageHead, panel, payloadView, show as showDialog, table, toast, trouble } from '../lib/ui.js'

export const title = 'Settings'

const ROLES = ['viewer', 'operator', 'admin']

export async function show(_, signal) {
  const isAdmin = may('admin')
  return h('div', { className: 'page' }, pageHead(title, { actions: isAdmin && reloader() }), isAdmin && h('div', { className: 'halves' }, users(signal), tokens(signal)), await configuration(signal))
}

function reloader() {
  return button('Reload the configuration…', () =>
    ask({
      heading: 'Reload the configuration?',
      text: 'The file is read again, with certificates, passwords and rules. Where it has an error, nothing changes. Connections that need not go stay.',
      submit: 'Reload',
      act: async () => {
        const { changed, needs_restart: later } = await post(['reload'])
        const line = ({ key, before, after }) => h('li', {}, `${key}: ${value(after)}, and was ${value(before)}`)
        const list = (all) => (all.length > 0 ? h('ul', { className: 'code' }, all.map(line)) : h('p', {}, 'Nothing.'))
        showDialog({ heading: 'Reloaded' }, h('h3', {}, 'Changed'), list(changed), h('h3', {}, 'Changes with the next start'), list(later))
      },
    }),
  )
}

// ---- the configuration

async function configuration(signal) {
  const wrong = trouble()
  let items = []
  const shown = table({
    caption: 'Configuration',
    key: ({ key }) => key,
    empty: 'No key is like that.',
    columns: [
      { head: 'Key', text: ({ key }) => key, kind: 'code break' },
      { head: 'Value', text: ({ value: what }) => (what === '' ? '""' : value(what)), kind: 'code break' },
      {
        head: 'From',
        node: () => h('span', {}),
        update: (mark, { origin }) => fill(mark, origin === 'default' ? 'default' : badge(String(origin ?? NOTHING))),
      },
    ],
  })
  const only = h('input', { type: 'checkbox', on: { change: () => draw() } })
  const search = h('input', { type: 'search', autocomplete: 'off', placeholder: 'limits.', on: { input: () => draw() } })
  const draw = () => {
    const text = search.value.trim().toLowerCase()
    shown.update(items.filter(({ key, value: what, origin }) => (!only.checked || origin !== 'default') && `${key} ${value(what)}`.toLowerCase().includes(text)))
  }
  try {
    let after = null
    do {
      const page = await get(['config'], { after, limit: 1000 }, signal)
      items.push(...page.items)
      after = page.next ?? null
    } while (after !== null)
  } catch (error) {
    wrong.set(error)
    items = []
  }
  draw()
  return panel(
    { heading: 'Configuration', note: 'What holds, and where each value comes from.' },
    h('div', { className: 'filters', role: 'search' }, h('label', { className: 'filter' }, h('span', {}, 'Key or value'), search), h('label', { className: 'inline' }, only, ' only what is not the default')),
    wrong.element,
    shown.element,
  )
}

// ---- users and tokens of the HTTP port

function users(signal) {
  const list = listing({
    parts: ['users'],
    signal,
    every: 10000,
    caption: 'Users of the dashboard and the API',
    key: ({ name }) => name,
    columns: [
      { head: 'Name', text: ({ name }) => name },
      { head: 'Role', text: ({ role }) => role },
      {
        head: 'Change',
        hiddenHead: true,
        node: ({ name, role }) => h('span', { className: 'actions' }, button('Change…', () => change(name, role)), name !== session.name && button('Remove…', () => away(name), { kind: 'danger' })),
      },
    ],
  })
  const roleField = (value) => field({ name: 'role', label: 'Role', type: 'select', options: ROLES, value, hint: 'Viewers see all but payloads; operators change what runs; admins do everything.' })
  const change = (name, role) =>
    ask({
      heading: `Change ${name}`,
      fields: [roleField(role), field({ name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', hint: 'Empty: as it is.' })],
      submit: 'Change',
      act: async ({ role, password }) => {
        await patch(['users', name], password === '' ? { role } : { role, password })
        toast(`${name} was changed.`)
        list.refresh()
      },
    })
  const away = (name) =>
    ask({
      heading: `Remove ${name}?`,
      text: `${name} is logged out at once, and cannot log in again.`,
      submit: 'Remove',
      kind: 'danger',
      act: async () => {
        await remove(['users', name])
        toast(`${name} was removed.`)
        list.refresh()
      },
    })
  const add = button('New user…', () =>
    ask({
      heading: 'New user',
      fields: [
        field({ name: 'name', label: 'Name', required: true }),
        field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', required: true }),
        roleField('viewer'),
      ],
      submit: 'Add',
      act: async ({ name, password, role }) => {
        await post(['users'], { name, password, role })
        toast(`${name} was added.`)
        list.refresh()
      },
    }),
  )
  return panel({ heading: 'Users', note: 'Of this dashboard and the API.', actions: add }, list.element)
}

function tokens(signal) {
  const list = listing({
    parts: ['tokens'],
    signal,
    every: 10000,
    caption: 'Tokens of the API',
    empty: 'There are no tokens.',
    key: ({ id }) => id,
    columns: [
      { head: 'Name', text: ({ name }) => name },
      { head: 'Role', text: ({ role }) => role },
      { head: 'Expires', text: ({ expires_at_ms: at }) => (at === null ? 'never' : moment(at)) },
      { head: 'Revoke', hiddenHead: true, node: (token) => button('Revoke…', () => revoke(token), { kind: 'danger' }) },
    ],
  })
  const revoke = ({ id, name }) =>
    ask({
      heading: `Revoke ${name}?`,
      text: 'Whoever uses it is refused from now on.',
      submit: 'Revoke',
      kind: 'danger',
      act: async () => {
        await remove(['tokens', id])
        toast(`${name} was revoked.`)
        list.refresh()
      },
    })
  const add = button('New token…', () =>
    ask({
      heading: 'New token',
      text: 'For programs: Authorization: Bearer TOKEN.',
      fields: [
        field({ name: 'name', label: 'What it is for', required: true }),
        field({ name: 'role', label: 'Role', type: 'select', options: ROLES, value: 'viewer' }),
        field({ name: 'days', label: 'Expires after so many days', type: 'number', min: 1, placeholder: 'never' }),
      ],
      submit: 'Make',
      act: async ({ name, role, days }) => {
        const { token } = await post(['tokens'], days === null ? { name, role } : { name, role, expires_secs: days * 86400 })
        list.refresh()
        showDialog({ heading: `The token ${name}` }, h('p', {}, 'It is shown this once, and cannot be had again.'), payloadView(token))
      },
    }),
  )
  return panel({ heading: 'Tokens', note: 'For programs.', actions: add }, list.element)
}

