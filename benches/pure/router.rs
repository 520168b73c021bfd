//! Topics and who gets them, among few and many subscriptions.

use std::cell::LazyCell;
use std::hint::black_box;

use rotamq::config::Limits;
use rotamq::message::{Place, Qos, SessionId};
use rotamq::router::{MatchCache, Receiver, Router, Subscription};
use rotamq::topic::TopicName;

use crate::inputs::{SIZES, filter, levels_of, name, scattered, topic_of};
use crate::{Criterion, Group, Round, bench};

/// Topics that are asked for: more than a worker remembers by default.
const LOOKUPS_MAX: usize = 250_000;
/// Topics that are asked for again and again.
const HOT_MAX: usize = 1000;
/// Filters that come and go.
const CHANGED: usize = 1000;
/// Sessions at one filter, each topic of which takes 20 KB of the cache.
const FAN_OUT: usize = 1000;
const FAN_OUT_TOPICS: usize = 10_000;
const FAN_OUT_HOT: usize = 10;
/// A cache that is too small for any topic, but not for a walk of the tree.
const NO_TOPIC_BYTES: usize = 256;
/// Levels before those of [`topic_of`] in deep topics.
const DEEP: usize = 26;

/// What filters of a tree look like, and what topics that they match.
#[derive(Clone, Copy)]
enum Shape {
    /// `site/1/line/2/sensor/3`.
    Exact,
    /// `site/1/line/2/+/3`.
    Plus,
    /// `site/1/line/2/sensor/3/#`, for topics two levels below.
    Multi,
    /// Without wildcards, of 32 levels.
    Deep,
}

const SHAPES: [(&str, Shape); 4] = [
    ("exact", Shape::Exact),
    ("plus", Shape::Plus),
    ("multi", Shape::Multi),
    ("deep", Shape::Deep),
];

impl Shape {
    fn filter(self, number: usize) -> String {
        let (site, line, sensor) = levels_of(number);
        match self {
            Shape::Exact | Shape::Deep => self.topic(number),
            Shape::Plus => format!("site/{site}/line/{line}/+/{sensor}"),
            Shape::Multi => format!("{}/#", topic_of(number)),
        }
    }

    fn topic(self, number: usize) -> String {
        let topic = topic_of(number);
        match self {
            Shape::Exact | Shape::Plus => topic,
            Shape::Multi => format!("{topic}/temperature/now"),
            Shape::Deep => format!("{}{topic}", "level/".repeat(DEEP)),
        }
    }
}

/// Subscriptions, and topics that they match.
struct Tree {
    router: Router,
    topics: Vec<String>,
    hot: usize,
}

impl Tree {
    /// One session for each filter, one filter for each topic.
    fn new(shape: Shape, size: usize) -> Tree {
        let router = Router::new();
        for number in 0..size {
            subscribe(&router, &shape.filter(number), number);
        }
        let numbers = scattered(size, LOOKUPS_MAX);
        Tree {
            router,
            topics: numbers.map(|number| shape.topic(number)).collect(),
            hot: HOT_MAX,
        }
    }

    /// All sessions at one filter, for all topics.
    fn fan_out() -> Tree {
        let router = Router::new();
        (0..FAN_OUT).for_each(|number| subscribe(&router, "site/+/news", number));
        let sites = 0..FAN_OUT_TOPICS;
        Tree {
            router,
            topics: sites.map(|site| format!("site/{site}/news")).collect(),
            hot: FAN_OUT_HOT,
        }
    }

    /// Each match asks the tree; nothing is remembered.
    fn uncached(&self) -> Lookups<'_> {
        self.lookups(self.topics.len(), NO_TOPIC_BYTES)
    }

    /// Each is forgotten when it is asked for again: it also takes another
    /// one's place.
    fn missed(&self) -> Lookups<'_> {
        self.lookups(self.topics.len(), Limits::default().match_cache_bytes_max)
    }

    /// Each is remembered.
    fn cached(&self) -> Lookups<'_> {
        let mut lookups = self.lookups(self.hot, Limits::default().match_cache_bytes_max);
        for _ in 0..self.hot {
            lookups.turn();
        }
        lookups
    }

    fn lookups(&self, count: usize, cache_bytes_max: usize) -> Lookups<'_> {
        let topics = self.topics.iter().take(count);
        Lookups {
            router: &self.router,
            cache: MatchCache::new(cache_bytes_max),
            topics: Round::new(topics.map(|text| name(text))),
        }
    }
}

struct Lookups<'t> {
    router: &'t Router,
    cache: MatchCache,
    topics: Round<TopicName<'t>>,
}

impl Lookups<'_> {
    #[inline]
    fn turn(&mut self) {
        let topic = *self.topics.next();
        let found = self.router.matches(black_box(topic), &mut self.cache);
        assert!(!found.targets.is_empty(), "each topic has a subscriber");
        black_box(found.targets);
    }
}

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for (title, shape) in SHAPES {
        for size in SIZES {
            let tree = LazyCell::new(|| Tree::new(shape, size));
            let title = format!("{title}/{size}");
            lookups(&mut group, "uncached", &title, 1, || tree.uncached());
            if size > LOOKUPS_MAX {
                lookups(&mut group, "missed", &title, 1, || tree.missed());
            }
            lookups(&mut group, "cached", &title, 1, || tree.cached());
            changes(&mut group, &title, &tree, (shape, size));
        }
    }
    let tree = LazyCell::new(Tree::fan_out);
    let title = format!("fan-out-{FAN_OUT}");
    lookups(&mut group, "missed", &title, FAN_OUT, || tree.missed());
    lookups(&mut group, "cached", &title, FAN_OUT, || tree.cached());
    group.finish();
}

fn lookups<'t>(
    group: &mut Group<'_>,
    how: &str,
    title: &str,
    receivers: usize,
    build: impl Fn() -> Lookups<'t>,
) {
    let name = format!("match-{how}/{title}");
    bench(group, name, receivers, build, Lookups::turn);
}

/// A session comes with a filter that is not in the tree, and goes.
fn changes<F: FnOnce() -> Tree>(
    group: &mut Group<'_>,
    title: &str,
    tree: &LazyCell<Tree, F>,
    (shape, size): (Shape, usize),
) {
    let filters = || (0..CHANGED).map(|number| shape.filter(size + number));
    let build = || (&tree.router, Round::new(filters()));
    let name = format!("subscribe-unsubscribe-1/{title}");
    bench(group, name, 1, build, |(router, filters)| {
        let text = black_box(filters.next());
        subscribe(router, text, size);
        let gone = router.unsubscribe(filter(text), session(size));
        black_box(gone).expect("it was there");
    });
}

fn subscribe(router: &Router, text: &str, number: usize) {
    let subscription = Subscription::new(Qos::AtLeastOnce);
    router.subscribe(filter(text), session(number), subscription);
}

fn session(number: usize) -> Receiver {
    Receiver::Session(SessionId(Place {
        slot: u32::try_from(number).expect("there are fewer sessions"),
        generation: 0,
    }))
}
