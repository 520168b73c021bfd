//! The router beside an obvious model of it.

mod retained;
mod threads;
mod tree;

use proptest::prelude::*;
use proptest::sample::select;
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

fn topic(text: &str) -> TopicName<'_> {
    TopicName::parse(text, TopicLimits::NONE).expect("a topic name")
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, TopicLimits::NONE).expect("a topic filter")
}

/// Section 4.7, said once more and another way than in `src`: over two lists
/// of levels.
fn model_matches(filter: &str, topic: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    if topic[0].starts_with('$') && ["+", "#"].contains(&filter[0]) {
        return false;
    }
    let (fixed, deep_enough) = match filter.split_last() {
        Some((&"#", above)) => (above, topic.len() >= above.len()),
        _ => (&filter[..], topic.len() == filter.len()),
    };
    deep_enough && std::iter::zip(fixed, &topic).all(|(f, t)| *f == "+" || f == t)
}

/// Few levels, so that filters and topics meet: an empty one, one that is the
/// beginning of another, one that sorts before the separator, `$`, two bytes.
const LEVELS: [&str; 7] = [
    "",
    "a",
    "ab",
    "a!",
    "é",
    "$s",
    "long-enough-for-its-own-allocation",
];

fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&LEVELS), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty [MQTT-4.7.3-1]", |text| !text.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => select(&LEVELS), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty [MQTT-4.7.3-1]", |text| !text.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_filter_matches_what_the_model_says(filter_text in filters(), topic_text in topics()) {
        prop_assert_eq!(
            filter(&filter_text).matches(topic(&topic_text)),
            model_matches(&filter_text, &topic_text)
        );
    }
}

/// Runs a test on a stack that holds no recursion over a topic's levels.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(test)
        .expect("a thread")
        .join()
        .expect("the test passes");
}
