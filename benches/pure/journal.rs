//! What is to be stored, written and read.

use std::hint::black_box;

use rotamq::config::Durability;
use rotamq::journal::{Change, Journal, ListId, changes};

use crate::inputs::PAYLOAD;
use crate::{Criterion, bench};

/// Messages of one read, say.
const ROWS: usize = 100;
const LIST: ListId = ListId(1);

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    let name = |what| format!("{what}-{ROWS}");
    bench(
        &mut group,
        name("push"),
        ROWS,
        Journal::default,
        |journal| {
            journal.clear();
            push(journal);
            black_box(journal.as_bytes());
        },
    );
    bench(
        &mut group,
        name("remove"),
        ROWS,
        Journal::default,
        |journal| {
            journal.clear();
            remove(journal);
            black_box(journal.as_bytes());
        },
    );
    bench(&mut group, name("read"), ROWS, pushed, |journal| {
        for change in changes(black_box(journal.as_bytes())) {
            black_box(change).expect("a journal wrote it");
        }
    });
    group.finish();
}

fn pushed() -> Journal {
    let mut journal = Journal::default();
    push(&mut journal);
    journal
}

fn push(journal: &mut Journal) {
    for row in 1..=ROWS as u64 {
        let body = [&b"a head"[..], &PAYLOAD];
        journal.push(Durability::Synced, (LIST, black_box(row)), b"about", &body);
    }
}

fn remove(journal: &mut Journal) {
    for row in 1..=ROWS as u64 {
        let (list, row, shared) = (LIST, black_box(row), 0);
        journal.add(Durability::Synced, Change::Remove { list, row, shared });
    }
}
