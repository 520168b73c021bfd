// Light or dark: as the system has it, or as somebody chose for this browser.

import { h } from './dom.js'
import { select } from './ui.js'

const KEY = 'rotamq-theme'
const CHOICES = [
  ['', 'System'],
  ['light', 'Light'],
  ['dark', 'Dark'],
]

function chosen() {
  try {
    return localStorage.getItem(KEY) ?? ''
  } catch {
    return '' // A browser may forbid it.
  }
}

export function apply(choice = chosen()) {
  if (choice) document.documentElement.dataset.theme = choice
  else delete document.documentElement.dataset.theme
}

export function control() {
  const choice = select(CHOICES, {
    value: chosen(),
    'aria-label': 'Colours',
    on: {
      change: () => {
        try {
          localStorage.setItem(KEY, choice.value)
        } catch {
          // It holds until the page is loaded again.
        }
        apply(choice.value)
        dispatchEvent(new Event('theme'))
      },
    },
  })
  return h('div', { className: 'theme' }, choice)
}

// Calls `changed` when there are other colours, until `signal` is aborted.
export function watch(signal, changed) {
  addEventListener('theme', changed, { signal })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed, { signal })
}
