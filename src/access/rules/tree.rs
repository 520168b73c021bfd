//! Rules by the topics they are about: a node a level, beside each other what
//! is allowed and what is denied.
//!
//! Made once and never changed. A placeholder is a kind of edge: it is compared
//! with a level and put into no filter, so that no name can act as a wildcard
//! or as two levels. Recursion is as deep as the rules are, which are bounded
//! by [`LIMITS`]; what clients send decides nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::topic::{TopicError, TopicFilter, TopicLimits};

/// Of a rule's filter: as long as a topic may be, and deeper than mosquitto
/// takes them.
const LIMITS: TopicLimits = TopicLimits {
    bytes_max: 65_535,
    levels_max: 256,
};

/// A rule's filter.
///
/// # Errors
/// Why it is none, for people.
pub(super) fn parse_filter(text: &str, has_placeholders: bool) -> Result<TopicFilter<'_>, String> {
    let filter = TopicFilter::parse(text, LIMITS).map_err(|error| match error {
        TopicError::TooLong | TopicError::TooDeep => {
            let TopicLimits {
                bytes_max,
                levels_max,
            } = LIMITS;
            format!("is no topic filter: it has {bytes_max} bytes and {levels_max} levels at most")
        }
        error => format!("{text:?} is no topic filter: {error}"),
    })?;
    let first = filter.levels().next().unwrap_or_default();
    if has_placeholders && first.starts_with('$') && Template::parse(first).is_some() {
        return Err(format!(
            "{text:?} would let a name say which of the broker's own topics are meant: write {first:?} without %u and %c"
        ));
    }
    Ok(filter)
}

/// No rule, or no node.
const NONE: u32 = u32::MAX;
pub(super) const ROOT: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// A name that stands for a placeholder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    /// The client has none: rules with the placeholder are not about it.
    Absent,
    /// It cannot stand in a topic as one level. It fits no rule that allows,
    /// and every rule that denies, as whatever it could have meant.
    Unfit,
    Fit(&'a str),
}

impl<'a> Name<'a> {
    pub(super) fn of(name: Option<&'a str>) -> Name<'a> {
        match name {
            None => Name::Absent,
            Some(text) if is_fit(text) => Name::Fit(text),
            Some(_) => Name::Unfit,
        }
    }
}

fn is_fit(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/', '\0'])
}

/// What `%u` and `%c` stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub user: Name<'a>,
    pub client: Name<'a>,
}

/// The first rules, in the order of the file, that are about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    allow: u32,
    deny: u32,
}

impl Found {
    pub(super) const NOTHING: Found = Found {
        allow: NONE,
        deny: NONE,
    };

    pub(super) fn rule(self, effect: Effect) -> Option<u32> {
        let rule = match effect {
            Effect::Allow => self.allow,
            Effect::Deny => self.deny,
        };
        (rule != NONE).then_some(rule)
    }

    fn add(&mut self, node: &Node) {
        self.allow = self.allow.min(node.allow);
        self.deny = self.deny.min(node.deny);
    }
}

#[derive(Debug)]
pub(super) struct Tree {
    /// The root first. A node's literal children stand together; a child comes
    /// after its parent.
    nodes: Box<[Node]>,
    /// The literal children of nodes that have several, by parent and text.
    edges: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Of a literal child.
    level: Box<str>,
    /// The first rule that ends here, of each kind.
    allow: u32,
    deny: u32,
    /// The first that denies here or anywhere below.
    deny_below: u32,
    plus: u32,
    multi: u32,
    literals: Range<u32>,
    templates: Box<[(Template, u32)]>,
}

impl Node {
    fn rule(&self, effect: Effect) -> Option<u32> {
        let found = Found {
            allow: self.allow,
            deny: self.deny,
        };
        found.rule(effect)
    }
}

/// A level with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    User,
    Client,
}

/// What a template has to do with a level.
enum Fit {
    No,
    Yes,
    /// Nobody can tell, as a name is unfit.
    Unfit,
}

impl Template {
    /// `None`: the level has no placeholder.
    fn parse(level: &str) -> Option<Template> {
        let mut pieces = Vec::new();
        let mut rest = level;
        let mut searched = 0;
        while let Some(at) = rest[searched..].find('%').map(|at| at + searched) {
            let piece = match rest.as_bytes().get(at + 1) {
                Some(b'u') => Piece::User,
                Some(b'c') => Piece::Client,
                _ => {
                    searched = at + 1;
                    continue;
                }
            };
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
            }
            pieces.push(piece);
            rest = &rest[at + 2..];
            searched = 0;
        }
        if pieces.is_empty() {
            return None;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Some(Template(pieces))
    }

    fn fits(&self, level: &[u8], names: Names<'_>) -> Fit {
        let mut rest = level;
        for piece in &self.0 {
            let text = match piece.text(names) {
                Name::Absent => return Fit::No,
                Name::Unfit => return Fit::Unfit,
                Name::Fit(text) => text,
            };
            match rest.strip_prefix(text.as_bytes()) {
                Some(after) => rest = after,
                None => return Fit::No,
            }
        }
        match rest.is_empty() {
            true => Fit::Yes,
            false => Fit::No,
        }
    }

    /// The level that it stands for, or how it begins if a name is unfit; and
    /// which of the two.
    fn fill(&self, names: Names<'_>) -> (String, Fit) {
        let mut level = String::new();
        for piece in &self.0 {
            match piece.text(names) {
                Name::Absent => return (level, Fit::No),
                Name::Unfit => return (level, Fit::Unfit),
                Name::Fit(text) => level.push_str(text),
            }
        }
        (level, Fit::Yes)
    }
}

impl Piece {
    fn text<'a>(&'a self, names: Names<'a>) -> Name<'a> {
        match self {
            Piece::Text(text) => Name::Fit(text),
            Piece::User => names.user,
            Piece::Client => names.client,
        }
    }
}

/// The placeholders that a filter has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placeholders {
    pub user: bool,
    pub client: bool,
}

impl Placeholders {
    pub(super) fn of(filter: &str) -> Placeholders {
        Placeholders {
            user: filter.contains("%u"),
            client: filter.contains("%c"),
        }
    }

    pub(super) fn add(&mut self, more: Placeholders) {
        self.user |= more.user;
        self.client |= more.client;
    }
}

// ---- Making

/// A tree that grows.
#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<Growing>,
}

#[derive(Default)]
struct Growing {
    allow: Option<u32>,
    deny: Option<u32>,
    plus: Option<usize>,
    multi: Option<usize>,
    literals: BTreeMap<Box<str>, usize>,
    templates: Vec<(Template, usize)>,
}

impl Builder {
    /// `rule`: its place among all, in the order of the file.
    pub(super) fn insert(
        &mut self,
        filter: TopicFilter<'_>,
        has_placeholders: bool,
        effect: Effect,
        rule: u32,
    ) {
        self.grow_root();
        let mut node = 0;
        for level in filter.levels() {
            let next = self.nodes.len();
            let here = &mut self.nodes[node];
            let template = match has_placeholders {
                true => Template::parse(level),
                false => None,
            };
            node = match (level, template) {
                ("+", _) => *here.plus.get_or_insert(next),
                ("#", _) => *here.multi.get_or_insert(next),
                (level, None) => *here.literals.entry(level.into()).or_insert(next),
                (_, Some(template)) => {
                    let known = here.templates.iter().find(|(known, _)| *known == template);
                    match known {
                        Some(&(_, child)) => child,
                        None => {
                            here.templates.push((template, next));
                            next
                        }
                    }
                }
            };
            if node == next {
                self.nodes.push(Growing::default());
            }
        }
        let end = match effect {
            Effect::Allow => &mut self.nodes[node].allow,
            Effect::Deny => &mut self.nodes[node].deny,
        };
        end.get_or_insert(rule);
    }

    fn grow_root(&mut self) {
        if self.nodes.is_empty() {
            self.nodes.push(Growing::default());
        }
    }

    pub(super) fn build(mut self) -> Tree {
        self.grow_root();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let mut waiting = VecDeque::from([(ROOT, 0, Box::<str>::default())]);
        let mut numbered = ROOT + 1;
        while let Some((parent, from, level)) = waiting.pop_front() {
            let here = nodes.len() as u32;
            let growing = std::mem::take(&mut self.nodes[from]);
            let first = numbered;
            let mut number = |child, level| {
                waiting.push_back((here, child, level));
                numbered += 1;
                numbered - 1
            };
            let literals = first..first + growing.literals.len() as u32;
            for (level, child) in growing.literals {
                number(child, level);
            }
            let mut wildcard =
                |child: Option<usize>| child.map_or(NONE, |child| number(child, Box::default()));
            let (plus, multi) = (wildcard(growing.plus), wildcard(growing.multi));
            let templates = growing.templates.into_iter();
            nodes.push(Node {
                parent,
                level,
                allow: growing.allow.unwrap_or(NONE),
                deny: growing.deny.unwrap_or(NONE),
                deny_below: NONE,
                plus,
                multi,
                literals,
                templates: templates
                    .map(|(template, child)| (template, number(child, Box::default())))
                    .collect(),
            });
        }
        for at in (0..nodes.len()).rev() {
            let node = &nodes[at];
            let children = (node.literals.clone())
                .chain([node.plus, node.multi])
                .chain(node.templates.iter().map(|(_, child)| *child));
            let below = children
                .filter(|child| *child != NONE)
                .map(|child| nodes[child as usize].deny_below);
            nodes[at].deny_below = below.fold(node.deny, u32::min);
        }
        let mut tree = Tree {
            nodes: nodes.into_boxed_slice(),
            edges: HashTable::new(),
            hasher: RandomState::new(),
        };
        tree.make_edges();
        tree
    }
}

// ---- Asking

/// A tree and the node in it to begin at.
#[derive(Clone, Copy)]
pub(super) struct Place<'t> {
    pub tree: &'t Tree,
    pub start: u32,
}

/// What a topic still has to meet: its levels from here on. `None`: it ended.
type Rest<'a> = Option<&'a [u8]>;

impl Tree {
    fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn node_if(&self, node: u32) -> Option<&Node> {
        (node != NONE).then(|| self.node(node))
    }

    /// The node's child of that text.
    fn literal(&self, node: u32, level: &[u8]) -> Option<u32> {
        let children = &self.node(node).literals;
        if children.len() <= 1 {
            let mut only = children.clone();
            return only.find(|child| self.node(*child).level.as_bytes() == level);
        }
        let is_meant = |child: &u32| {
            let child = self.node(*child);
            child.parent == node && child.level.as_bytes() == level
        };
        let hash = self.hasher.hash_one((node, level));
        self.edges.find(hash, is_meant).copied()
    }

    fn make_edges(&mut self) {
        let Tree {
            nodes,
            edges,
            hasher,
        } = self;
        let hash_of = |child: u32| {
            let node = &nodes[child as usize];
            hasher.hash_one((node.parent, node.level.as_bytes()))
        };
        for node in nodes.iter().filter(|node| node.literals.len() > 1) {
            for child in node.literals.clone() {
                edges.insert_unique(hash_of(child), child, |child| hash_of(*child));
            }
        }
    }

    /// The node of rules whose first level is this text.
    pub(super) fn below(&self, level: &str) -> Option<u32> {
        self.literal(ROOT, level.as_bytes())
    }
}

impl<'t> Place<'t> {
    /// Whether, of rules that begin here, those that begin with a wildcard or
    /// placeholder are about no text that begins so [MQTT-4.7.2-1].
    fn hides(self, text: &[u8]) -> bool {
        self.start == ROOT && text.first() == Some(&b'$')
    }

    /// The first rules about a topic.
    pub(super) fn find(self, topic: &[u8], names: Names<'_>, found: &mut Found) {
        self.find_from(self.start, Some(topic), self.hides(topic), names, found);
    }

    fn find_from(self, id: u32, rest: Rest<'_>, hidden: bool, names: Names<'_>, found: &mut Found) {
        let node = self.tree.node(id);
        if !hidden && let Some(multi) = self.tree.node_if(node.multi) {
            found.add(multi); // also of the level above it (4.7.1.2)
        }
        let Some(rest) = rest else {
            return found.add(node);
        };
        let (level, rest) = split(rest);
        if let Some(child) = self.tree.literal(id, level) {
            self.find_from(child, rest, false, names, found);
        }
        if hidden {
            return;
        }
        if node.plus != NONE {
            self.find_from(node.plus, rest, false, names, found);
        }
        for (template, child) in &node.templates {
            match template.fits(level, names) {
                Fit::No => {}
                Fit::Yes => self.find_from(*child, rest, false, names, found),
                Fit::Unfit => found.deny = found.deny.min(self.tree.node(*child).deny_below),
            }
        }
    }

    /// Whether every topic that `filter` matches is matched by some rule of
    /// this effect, in one of the places: the place's index, and a rule that is
    /// about the last of them.
    ///
    /// A level that no rule names stands for what a wildcard matches: what is
    /// about it is about any other level too.
    pub(super) fn cover(
        places: &[(usize, Place<'t>)],
        filter: TopicFilter<'_>,
        effect: Effect,
        names: Names<'_>,
    ) -> Option<(usize, u32)> {
        let text = filter.as_str().as_bytes();
        let mut at: Vec<At<'t>> = places
            .iter()
            .map(|&(index, place)| At {
                index,
                tree: place.tree,
                node: place.start,
                hidden: place.hides(text),
            })
            .collect();
        // No topic is empty, nor has no level at all.
        let may_end = !matches!(filter.as_str(), "#" | "/#");
        for level in filter.levels() {
            if level == "#" {
                return cover_below(at, may_end, effect, names);
            }
            let mut next = Vec::new();
            for at in at {
                let rule = at.multi(effect);
                if let Some(rule) = rule.or_else(|| at.unfit(level, effect, names)) {
                    return Some((at.index, rule));
                }
                at.step(level, names, &mut next);
            }
            at = next;
        }
        at.iter().find_map(|at| {
            let rule = at.node().rule(effect).or_else(|| at.multi(effect));
            rule.map(|rule| (at.index, rule))
        })
    }

    /// Shows `visit` each rule of this effect that is about a topic which
    /// `filter` matches, and a filter of all these topics; until it says
    /// `true`, which is returned.
    pub(super) fn overlap(
        self,
        filter: TopicFilter<'_>,
        effect: Effect,
        names: Names<'_>,
        visit: &mut dyn FnMut(u32, &str) -> bool,
    ) -> bool {
        let mut overlap = Overlap {
            place: self,
            effect,
            names,
            levels: Vec::new(),
            visit,
        };
        overlap.from(self.start, Some(filter.as_str()))
    }
}

/// A place on the way of a filter through the rules.
struct At<'t> {
    index: usize,
    tree: &'t Tree,
    node: u32,
    hidden: bool,
}

impl<'t> At<'t> {
    fn node(&self) -> &'t Node {
        self.tree.node(self.node)
    }

    /// A rule of this effect about all that ends or goes on here.
    fn multi(&self, effect: Effect) -> Option<u32> {
        let multi = self.tree.node_if(self.node().multi);
        multi.filter(|_| !self.hidden)?.rule(effect)
    }

    /// A rule that denies all that goes on with `level`, as nobody can tell
    /// what its placeholder stands for.
    fn unfit(&self, level: &str, effect: Effect, names: Names<'_>) -> Option<u32> {
        if effect == Effect::Allow || self.hidden {
            return None;
        }
        let mut templates = self.node().templates.iter();
        templates.find_map(|(template, child)| {
            let is_unfit = matches!(template.fits(level.as_bytes(), names), Fit::Unfit);
            let rule = self.tree.node(*child).deny_below;
            (is_unfit && rule != NONE).then_some(rule)
        })
    }

    /// Goes on to the rules whose next level is about all that `level` matches.
    fn step(&self, level: &str, names: Names<'_>, next: &mut Vec<At<'t>>) {
        let mut push = |node| {
            next.push(At {
                index: self.index,
                tree: self.tree,
                node,
                hidden: false,
            });
        };
        if level != "+"
            && let Some(child) = self.tree.literal(self.node, level.as_bytes())
        {
            push(child);
        }
        if self.hidden {
            return;
        }
        if self.node().plus != NONE {
            push(self.node().plus);
        }
        for (template, child) in &self.node().templates {
            if level != "+" && matches!(template.fits(level.as_bytes(), names), Fit::Yes) {
                push(*child);
            }
        }
    }
}

/// As [`Place::cover`], where only the `#` of the filter is left: topics that
/// end here, and one, two and more levels below.
fn cover_below<'t>(
    mut at: Vec<At<'t>>,
    mut may_end: bool,
    effect: Effect,
    names: Names<'_>,
) -> Option<(usize, u32)> {
    loop {
        let with_index = |at: &At<'t>, rule: Option<u32>| rule.map(|rule| (at.index, rule));
        let multi = at.iter().find_map(|at| with_index(at, at.multi(effect)));
        if multi.is_some() {
            return multi;
        }
        if may_end && !at.iter().any(|at| at.node().rule(effect).is_some()) {
            return None;
        }
        may_end = true;
        let unfit = |at: &At<'t>| with_index(at, at.unfit("+", effect, names));
        if let Some(found) = at.iter().find_map(unfit) {
            return Some(found);
        }
        let mut next = Vec::new();
        for at in &at {
            at.step("+", names, &mut next);
        }
        if next.is_empty() {
            return None;
        }
        at = next;
    }
}

struct Overlap<'t, 'v> {
    place: Place<'t>,
    effect: Effect,
    names: Names<'v>,
    /// What both, filter and rule, say so far.
    levels: Vec<String>,
    visit: &'v mut dyn FnMut(u32, &str) -> bool,
}

impl Overlap<'_, '_> {
    /// `rest`: of the filter; `None`: it ended.
    fn from(&mut self, id: u32, rest: Option<&str>) -> bool {
        let tree = self.place.tree;
        let node = tree.node(id);
        // Wildcards on either side are not about what begins with `$`.
        let at_start = self.levels.is_empty();
        let hidden = at_start && rest.is_some_and(|rest| self.place.hides(rest.as_bytes()));
        let shown = |level: &str| !(at_start && level.starts_with('$'));
        let ends = rest.is_none_or(|rest| rest == "#" && !self.levels.is_empty());
        if ends && self.show(node.rule(self.effect), None) {
            return true;
        }
        if !hidden
            && let Some(multi) = tree.node_if(node.multi)
            && self.show(multi.rule(self.effect), rest)
        {
            return true;
        }
        let Some(rest) = rest else {
            return false;
        };
        let (level, after) = match rest.split_once('/') {
            Some((level, after)) => (level, Some(after)),
            None if rest == "#" => ("#", Some("#")),
            None => (rest, None),
        };
        let is_open = matches!(level, "+" | "#");
        if !hidden && node.plus != NONE {
            let both = if is_open { "+" } else { level };
            if self.with(both, node.plus, after) {
                return true;
            }
        }
        match is_open {
            true => {
                for child in node.literals.clone() {
                    let literal = &tree.node(child).level;
                    if shown(literal) && self.with(literal, child, after) {
                        return true;
                    }
                }
            }
            false => {
                if let Some(child) = tree.literal(id, level.as_bytes())
                    && self.with(level, child, after)
                {
                    return true;
                }
            }
        }
        for (template, child) in &node.templates {
            if hidden {
                continue; // none begins with `$`
            }
            let (both, fit) = match is_open {
                true => template.fill(self.names),
                false => {
                    let fit = template.fits(level.as_bytes(), self.names);
                    (level.to_owned(), fit)
                }
            };
            let met = match fit {
                _ if is_open && !shown(&both) => false,
                Fit::Yes => self.with(&both, *child, after),
                Fit::Unfit => self.show_unfit(*child, rest),
                Fit::No => false,
            };
            if met {
                return true;
            }
        }
        false
    }

    fn with(&mut self, level: &str, node: u32, rest: Option<&str>) -> bool {
        self.levels.push(level.to_owned());
        let stopped = self.from(node, rest);
        self.levels.pop();
        stopped
    }

    /// What both say, and then `rest`.
    fn show(&mut self, rule: Option<u32>, rest: Option<&str>) -> bool {
        let Some(rule) = rule else {
            return false;
        };
        let mut both = self.levels.join("/");
        if let Some(rest) = rest {
            if !self.levels.is_empty() {
                both.push('/');
            }
            both.push_str(rest);
        }
        // No topic is empty.
        !both.is_empty() && (self.visit)(rule, &both)
    }

    /// A rule whose placeholder nobody can fill denies what it could mean.
    fn show_unfit(&mut self, node: u32, rest: &str) -> bool {
        let rule = self.place.tree.node(node).deny_below;
        let denies = self.effect == Effect::Deny && rule != NONE;
        self.show(denies.then_some(rule), Some(rest))
    }
}

fn split(rest: &[u8]) -> (&[u8], Rest<'_>) {
    match rest.iter().position(|byte| *byte == b'/') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}
