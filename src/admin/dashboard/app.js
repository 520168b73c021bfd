// The dashboard: who is there, where one is, and what all pages have around them.
//
// A page is a module with `title` and `show(route, signal)`, which gives its element; what it
// began ends when `signal` is aborted. Nothing here asks another host for anything.

import { me, may, onUnknown, post, session } from './lib/api.js'
import { fill, h } from './lib/dom.js'
import * as route from './lib/route.js'
import { attempt, button, sentence } from './lib/ui.js'
import * as theme from './lib/theme.js'
import * as access from './pages/access.js'
import * as client from './pages/client.js'
import * as clients from './pages/clients.js'
import * as login from './pages/login.js'
import * as logs from './pages/logs.js'
import * as overview from './pages/overview.js'
import * as queue from './pages/queue.js'
import * as queues from './pages/queues.js'
import * as settings from './pages/settings.js'
import * as topics from './pages/topics.js'
import * as trace from './pages/trace.js'
import * as workbench from './pages/workbench.js'

// What the menu offers; `role`: to whom.
const MENU = [
  ['overview', overview],
  ['queues', queues],
  ['clients', clients],
  ['topics', topics],
  ['workbench', workbench],
  ['logs', logs],
  ['access', access],
  ['settings', settings],
]
// Of something in particular: `#/queues/NAME`.
const DETAILS = { queues: queue, clients: client, logs: trace }

const app = document.getElementById('app')
let leaving = new AbortController()

function frame() {
  const items = MENU.map(([path, { title }]) => h('li', {}, h('a', { href: route.to(path), data: { path } }, title)))
  const list = h('ul', { id: 'menu' }, items)
  const opener = button('Menu', () => toggle(list.dataset.open !== 'true'), { kind: 'opener', 'aria-controls': 'menu', 'aria-expanded': 'false' })
  const toggle = (isOpen) => {
    list.dataset.open = isOpen
    opener.setAttribute('aria-expanded', isOpen)
  }
  list.addEventListener('click', () => toggle(false))
  const main = h('main', { id: 'main', tabIndex: -1 })
  const skip = h(
    'a',
    {
      className: 'skip',
      href: '#main',
      on: {
        click: (event) => {
          event.preventDefault()
          main.focus()
        },
      },
    },
    'Skip to the content',
  )
  fill(
    app,
    skip,
    h(
      'header',
      { className: 'bar' },
      h('a', { className: 'brand', href: route.to('overview') }, h('span', { className: 'logo', 'aria-hidden': 'true' }), 'RotaMQ'),
      opener,
      h('div', { className: 'who' }, theme.control(), h('span', { className: 'user', title: `Role: ${session.role}` }, `${session.name} (${session.role})`), button('Log out', logOut)),
    ),
    h('nav', { 'aria-label': 'Pages' }, list),
    main,
  )
  return main
}

async function logOut() {
  await attempt(() => post(['logout']))
  // Who comes next begins at the beginning, and finds nothing of this session: no password of
  // MQTT either.
  history.replaceState(null, '', route.to('overview'))
  location.reload()
}

let main = null

async function go({ isFirst = false } = {}) {
  // `#main` and the like are places in a page.
  if (location.hash !== '' && !location.hash.startsWith('#/')) return
  const { parts, query } = route.current()
  const [path = 'overview', ...rest] = parts
  const found = MENU.find(([name, page]) => name === path && may(page.role ?? 'viewer'))
  const page = (rest.length > 0 && DETAILS[path]) || found?.[1]
  leaving.abort()
  leaving = new AbortController()
  const { signal } = leaving
  document.querySelectorAll('dialog').forEach((dialog) => dialog.close())
  for (const link of document.querySelectorAll('#menu a')) {
    if (link.dataset.path === path) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  document.title = `${page?.titleOf?.(rest) ?? page?.title ?? 'Not found'} – RotaMQ`
  let shown
  try {
    shown = page ? await page.show({ parts: rest, query }, signal) : h('div', {}, h('h1', { tabIndex: -1 }, 'Not found'), h('p', {}, 'There is no such page.'))
  } catch (error) {
    shown = h('div', {}, h('h1', { tabIndex: -1 }, page.title), h('p', { className: 'trouble', role: 'alert' }, sentence(error)))
  }
  if (signal.aborted) return
  fill(main, shown)
  scrollTo(0, 0)
  if (!isFirst) main.querySelector('h1')?.focus()
}

// Finds out who is there, and shows the page, or the way in.
async function enter() {
  leaving.abort()
  leaving = new AbortController()
  main = null
  try {
    Object.assign(session, await me())
  } catch (error) {
    document.title = 'Log in – RotaMQ'
    fill(app, login.show(enter, error))
    return
  }
  main = frame()
  go({ isFirst: true })
}

onUnknown(() => {
  if (main) enter()
})
addEventListener('hashchange', () => {
  if (main) go()
})
theme.apply()
enter()
