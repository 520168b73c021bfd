//! Retained messages, found by topic and by filter.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use rotamq::message::{Message, Time};
use rotamq::router::{Cursor, RetainedStore};
use rotamq::topic::TopicFilter;

use crate::inputs::{filter, identity, message, name, scattered, topic_of};
use crate::{Criterion, Round, bench};

/// How many messages there are.
const SIZES: [usize; 2] = [1000, 1_000_000];
/// Topics that are asked for, more than a processor's cache has.
const LOOKUPS_MAX: usize = 65_536;
/// Keys that are looked at for a page, as for a new subscription.
const PAGE: usize = 256;

const FILTERS: [(&str, &str); 3] = [
    ("all", "site/#"),
    // Much next to each other, and much to skip.
    ("one-line-of-each-site", "site/+/line/7/#"),
    // One by one.
    ("one-sensor-of-each-line", "+/+/line/+/sensor/0"),
];

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retained");
    for size in SIZES {
        let store = LazyCell::new(|| store_of(size));
        let topics = || Round::new(scattered(size, LOOKUPS_MAX).map(topic_of));
        let get = || (&*store, topics());
        bench(
            &mut group,
            format!("get/{size}"),
            1,
            get,
            |(store, topics)| {
                let found = store.get(name(black_box(topics.next())), Time::ZERO);
                black_box(found).expect("it is there");
            },
        );
        let messages = || Round::new(messages(scattered(size, LOOKUPS_MAX)));
        let replace = || (&*store, messages());
        bench(
            &mut group,
            format!("replace/{size}"),
            1,
            replace,
            |(store, messages)| {
                let message = black_box(messages.next());
                let set = store.set(message.topic(), Some(message.clone()), Time::ZERO);
                set.expect("there is room");
            },
        );
        for (title, text) in FILTERS {
            let pages = || Pages::new(&store, filter(text));
            bench(
                &mut group,
                format!("page-{PAGE}/{title}/{size}"),
                PAGE,
                pages,
                Pages::turn,
            );
        }
    }
    group.finish();
}

fn store_of(size: usize) -> RetainedStore {
    let store = RetainedStore::new(usize::MAX, usize::MAX);
    messages(0..size).for_each(|message| store.restore(message));
    store
}

fn messages(numbers: impl Iterator<Item = usize>) -> impl Iterator<Item = Arc<Message>> {
    let publisher = identity();
    numbers.map(move |number| message(&topic_of(number), true, &publisher))
}

/// A filter's pages, round and round.
struct Pages<'s> {
    store: &'s RetainedStore,
    filter: TopicFilter<'s>,
    cursor: Option<Cursor>,
    page: Vec<Arc<Message>>,
}

impl<'s> Pages<'s> {
    fn new(store: &'s RetainedStore, filter: TopicFilter<'s>) -> Pages<'s> {
        Pages {
            store,
            filter,
            cursor: None,
            page: Vec::new(),
        }
    }

    fn turn(&mut self) {
        self.page.clear();
        let (filter, cursor) = black_box((self.filter, self.cursor.as_ref()));
        self.cursor = (self.store).page(filter, cursor, PAGE, Time::ZERO, &mut self.page);
        black_box(&self.page);
    }
}
