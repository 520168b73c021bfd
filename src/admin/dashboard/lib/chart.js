// Graphs: over time by uPlot, and small ones in a line of a table.
//
// Each has a text beside it that says what can be seen.

import uPlot from '../vendor/uPlot.esm.js'
import { h, setText } from './dom.js'
import { bytes, bytesPerSecond, count, NOTHING } from './format.js'

const HEIGHT = 150
// No graph shows less than so many seconds.
const YOUNG = 60

// A colour of the style sheet, as a canvas wants it.
function colour(name) {
  const probe = h('span', { hidden: true })
  probe.style.color = `var(--${name})`
  document.body.append(probe)
  const found = getComputedStyle(probe).color
  probe.remove()
  return found
}

const known = (values) => values.filter((value) => typeof value === 'number')

// The last value, the least and the most, as text.
function described(values, format) {
  const numbers = known(values)
  if (numbers.length === 0) return 'nothing is known'
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)]
  return `last ${format(values.at(-1))}, least ${format(least)}, most ${format(most)}`
}

// Where lines may be drawn across: at whole numbers, and of bytes at whole KiB and the like.
const WHOLE = [1, 2, 5].flatMap((first) => Array.from({ length: 13 }, (_, zeros) => first * 10 ** zeros)).sort((one, other) => one - other)
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power)

function steps(format) {
  if (format === count) return WHOLE
  return format === bytes || format === bytesPerSecond ? POWERS : undefined
}

// A graph over time. `series`: { key, label, format, scale } in the order of their colours; two
// scales at most, the second one on the right.
export function graph({ heading, series, span, sync }) {
  const canvas = h('div', { className: 'canvas', 'aria-hidden': 'true' })
  const legend = h(
    'ul',
    { className: 'legend' },
    series.map((one, at) => {
      one.value = h('span', { className: 'value' }, NOTHING)
      return h('li', {}, h('span', { className: `mark mark-${at + 1}` }), `${one.label} `, one.value)
    }),
  )
  const words = h('p', { className: 'hidden-text' })
  const element = h('figure', { className: 'graph' }, h('figcaption', {}, h('h3', {}, heading), legend), canvas, words)
  const scales = [...new Set(series.map(({ scale = 'y' }) => scale))]
  let data = [[], ...series.map(() => [])]
  let plot = null
  let wordsAt = 0

  const legendOf = (at) => {
    series.forEach((one, number) => {
      const values = data[number + 1]
      setText(one.value, one.format(at === null || at === undefined ? values.at(-1) : values[at]))
    })
  }

  // All of the span; of a broker that has not run so long yet, a little more than there is.
  const shown = () => {
    const now = data[0].at(-1) ?? Date.now() / 1000
    return [Math.max(now - span(), Math.min(data[0][0] ?? now, now - YOUNG)), now]
  }

  const make = () => {
    plot?.destroy()
    const [text, grid] = [colour('soft'), colour('line')]
    const format = (scale) => series.find((one) => (one.scale ?? 'y') === scale).format
    const font = '11px system-ui, sans-serif'
    plot = new uPlot(
      {
        width: Math.max(canvas.clientWidth, 100),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 }, sync: sync ? { key: sync } : undefined },
        scales: {
          x: { range: shown },
          ...Object.fromEntries(scales.map((scale) => [scale, { range: (_, least, most) => [0, most > 0 ? most * 1.15 : 1] }])),
        },
        axes: [
          { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font, space: 70, values: times },
          ...scales.map((scale, at) => ({
            scale,
            side: at === 0 ? 3 : 1,
            stroke: text,
            font,
            size: 58,
            space: 30,
            incrs: steps(format(scale)),
            grid: at === 0 ? { stroke: grid, width: 1 } : { show: false },
            ticks: { show: false },
            values: (_, values) => values.map(format(scale)),
          })),
        ],
        series: [
          {},
          ...series.map((one, at) => ({
            label: one.label,
            scale: one.scale ?? 'y',
            stroke: colour(`series-${at + 1}`),
            width: 1.5,
            fill: at === 0 && series.length < 3 ? colour('series-1-fill') : undefined,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [(self) => legendOf(self.cursor.idx)] },
      },
      data,
      canvas,
    )
  }

  const sized = new ResizeObserver(() => {
    if (canvas.clientWidth === 0) return
    if (plot) plot.setSize({ width: canvas.clientWidth, height: HEIGHT })
    else make()
  })
  sized.observe(canvas)

  return {
    element,
    // `columns`: moments in milliseconds, then the values of each series.
    set([at, ...values]) {
      data = [at.map((ms) => ms / 1000), ...values]
      plot?.setData(data)
      if (plot?.cursor.idx === null || plot?.cursor.idx === undefined) legendOf(null)
      // A reader who is in it is not to be interrupted each second.
      if (Date.now() - wordsAt > 10000) {
        wordsAt = Date.now()
        setText(words, series.map((one, number) => `${one.label}: ${described(data[number + 1], one.format)}.`).join(' '))
      }
    },
    // Another theme: other colours.
    redraw() {
      if (plot) make()
    },
    destroy() {
      sized.disconnect()
      plot?.destroy()
      plot = null
    },
  }
}

const TIME = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' })
const TIME_SECS = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

function times(_, moments, __, ___, step) {
  const format = step < 60 ? TIME_SECS : TIME
  return moments.map((secs) => format.format(new Date(secs * 1000)))
}

const WIDTH = 100
const TALL = 22

// A graph the size of a word. `set(values)`.
export function sparkline(label, format) {
  const area = h('path', { class: 'area' })
  const line = h('path', { class: 'line' })
  const element = h('svg', { class: 'sparkline', viewBox: `0 0 ${WIDTH} ${TALL}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label }, area, line)
  return {
    element,
    set(values) {
      element.setAttribute('aria-label', `${label}: ${described(values, format)}`)
      if (values.length < 2) {
        line.setAttribute('d', '')
        area.setAttribute('d', '')
        return
      }
      const most = Math.max(...known(values), 1)
      const x = (at) => ((at * WIDTH) / (values.length - 1)).toFixed(1)
      const y = (value) => (TALL - 1 - ((value ?? 0) / most) * (TALL - 3)).toFixed(1)
      const drawn = values.map((value, at) => `${at === 0 ? 'M' : 'L'}${x(at)} ${y(value)}`).join('')
      line.setAttribute('d', drawn)
      area.setAttribute('d', `${drawn}L${WIDTH} ${TALL}L0 ${TALL}Z`)
    },
  }
}
