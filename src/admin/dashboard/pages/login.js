// The way in: a name and a password, or, the first time, the token that the log shows, as part
// of the address `#/setup/TOKEN`.

import { login, Problem, setup } from '../lib/api.js'
import { h } from '../lib/dom.js'
import * as route from '../lib/route.js'
import { field, form, sentence } from '../lib/ui.js'

export function show(entered, error) {
  const { parts } = route.current()
  const token = parts[0] === 'setup' ? (parts[1] ?? '') : null
  // Nobody being known is no news here.
  const isNews = !(error instanceof Problem) || error.status !== 401
  const logIn = form({
    fields: [
      field({ name: 'name', label: 'Name', autocomplete: 'username', required: true, autofocus: token === null }),
      field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password', required: true }),
    ],
    submit: 'Log in',
    act: async ({ name, password }) => {
      await login(name, password)
      entered()
    },
  })
  const begin = form({
    fields: [
      field({ name: 'token', label: 'One-time token', value: token ?? '', required: true, hint: 'The log of the broker shows it when it starts and has no user yet.' }),
      field({ name: 'name', label: 'Name of the first administrator', autocomplete: 'username', required: true, autofocus: token !== null }),
      field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', required: true }),
      field({ name: 'again', label: 'Password again', type: 'password', autocomplete: 'new-password', required: true }),
    ],
    submit: 'Set up',
    act: async ({ token, name, password, again }) => {
      if (password !== again) throw new Problem(0, { detail: 'The two passwords are not the same.' })
      await setup(token.trim(), name, password)
      await login(name, password)
      // The token is of no use any more, and no page is called that.
      history.replaceState(null, '', route.to('overview'))
      entered()
    },
  })
  return h(
    'main',
    { className: 'login', id: 'main' },
    h('h1', {}, h('span', { className: 'logo', 'aria-hidden': 'true' }), 'RotaMQ'),
    isNews && h('p', { className: 'trouble', role: 'alert' }, sentence(error)),
    h('section', { className: 'panel' }, h('h2', {}, 'Log in'), logIn),
    h('details', { className: 'panel', open: token !== null }, h('summary', {}, 'First time here'), begin),
  )
}
