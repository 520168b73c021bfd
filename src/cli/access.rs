//! `rotamq access`: what rules say, without a broker.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{Failure, Outcome, say};
use crate::access::rules::{Ask, Rules, Strictness};
use crate::access::{OwnRights, ask_to_publish, read_rules};
use crate::config::{Effective, Flags, Source};
use crate::message::{ClientId, Identity, Qos};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// What `rotamq access` is told.
#[derive(clap::Args, Clone, Debug)]
pub struct AccessArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Tell all that is wrong with files of rules
    #[command(after_help = "\
Examples:
  rotamq access check --config rotamq.toml
  rotamq access check --acl acl.txt --rules rules.txt")]
    Check {
        /// Print that they are valid as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: Files,
    },
    /// Tell whether a client may do something, and which rule decides
    ///
    /// Ends with 0 if it may, with 1 if it may not.
    #[command(after_help = "\
Examples:
  rotamq access explain ann sensor-7 publish room/1 --config rotamq.toml
  rotamq access explain '' sensor-7 join '$queue/jobs' --acl acl.txt --json")]
    Explain {
        /// The user; "" for none
        user: String,
        /// The client identifier
        client: String,
        /// What it wants to do
        #[arg(value_enum)]
        what: What,
        /// The topic, the filter, or the name of the queue; $queue/NAME is a queue too
        topic: String,
        /// With which QoS it publishes
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// Whether what it publishes is to be retained
        #[arg(long)]
        retain: bool,
        /// A file with what the client's token, or the service that is asked, says of its rights,
        /// as JSON
        #[arg(long, value_name = "FILE")]
        claim: Option<PathBuf>,
        /// Print what is decided, and by which rules, as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: Files,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Files {
    /// The configuration that names the files
    #[arg(long, value_name = "FILE", conflicts_with_all = ["acl", "rules"])]
    config: Option<PathBuf>,
    /// A file like mosquitto's acl_file
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,
    /// A file of roles
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Publish,
    Subscribe,
    /// Get what is published to a topic
    Read,
    /// Put into a queue
    Put,
    Join,
    Create,
    Steer,
}

impl Files {
    /// `None`: there are no rules.
    fn read(&self) -> Result<(Option<Rules>, Strictness), Failure> {
        let config = match &self.config {
            Some(file) => {
                let source = Source::read(file)?;
                Some(Effective::load(Some(&source), std::env::vars_os(), &Flags::default())?.config)
            }
            None => None,
        };
        let (acl, form, strictness) = match &config {
            Some(config) => {
                let access = &config.access;
                (&access.acl_file, &access.rules_file, access.subscriptions)
            }
            None => (&self.acl, &self.rules, Strictness::Filter),
        };
        let rules = read_rules(acl.as_deref(), form.as_deref())?;
        Ok((rules, strictness))
    }

    fn missing(&self) -> Failure {
        match &self.config {
            Some(file) => Failure::new(format!(
                "{} names no access.acl_file and no access.rules_file: everybody may do everything",
                file.display()
            )),
            None => Failure::new("say where the rules are: --config, --acl or --rules FILE"),
        }
    }
}

/// Checks or explains.
///
/// # Errors
/// The files cannot be read, or all that is wrong with them.
pub fn run(arguments: AccessArguments) -> Outcome {
    match arguments.command {
        Command::Check { json, files } => {
            if files.read()?.0.is_none() {
                return Err(files.missing());
            }
            say(json, &json!({ "valid": true }), || {
                "The rules are valid.\n".to_owned()
            })
        }
        Command::Explain {
            user,
            client,
            what,
            topic,
            qos,
            retain,
            claim,
            json,
            files,
        } => {
            let (rules, strictness) = files.read()?;
            let own = claim.as_deref().map(read_claim).transpose()?;
            let rules = match (rules, &own) {
                (Some(rules), _) => rules,
                (None, Some(_)) => Rules::default(),
                (None, None) => return Err(files.missing()),
            };
            let who = Identity {
                user: (!user.is_empty()).then(|| Arc::from(user)),
                client: ClientId::new(&client),
            };
            let rights = rules.rights(
                &who,
                own.as_ref()
                    .map(OwnRights::set)
                    .map_or(&[], std::slice::from_ref),
            );
            let qos = Qos::from_bits(qos).expect("clap bounds it");
            let name = topic.strip_prefix("$queue/").unwrap_or(&topic);
            let shared = topic.strip_prefix("$share/");
            let shared = shared.and_then(|shared| shared.split_once('/'));
            let filter = filter(shared.map_or(name, |(_, filter)| filter))?;
            let (queue, is_queue) = (filter, name.len() < topic.len());
            let subscribe = Ask::Subscribe { filter, strictness };
            let asks = match what {
                What::Publish => vec![ask_to_publish(&topic, qos, retain)],
                What::Put => vec![Ask::Put { topic: name, qos }],
                What::Read => vec![Ask::Read {
                    topic: name.as_bytes(),
                }],
                What::Subscribe if !is_queue => vec![subscribe],
                // Who joins also gets what is published to the queue's name.
                What::Subscribe | What::Join => vec![Ask::Join { queue }, subscribe],
                What::Create => vec![Ask::Create { queue }],
                What::Steer => vec![Ask::Steer { queue }],
            };
            if matches!(what, What::Publish | What::Put | What::Read) {
                TopicName::parse(name, TopicLimits::NONE)
                    .map_err(|error| Failure::new(format!("{name:?} is no topic: {error}")))?;
            }
            let verdicts: Vec<_> = asks.into_iter().map(|ask| rights.decide(ask)).collect();
            // The first that is denied decides; else all have to be allowed.
            let denied = verdicts.iter().find(|verdict| !verdict.is_allowed());
            let shown: Vec<String> = match denied {
                Some(denied) => vec![rights.explain(*denied).to_string()],
                None => (verdicts.iter())
                    .map(|verdict| rights.explain(*verdict).to_string())
                    .collect(),
            };
            let told = json!({ "allowed": denied.is_none(), "by": shown });
            say(json, &told, || format!("{}\n", shown.join("\n")))?;
            Ok(ExitCode::from(u8::from(denied.is_some())))
        }
    }
}

fn read_claim(path: &Path) -> Result<OwnRights, Failure> {
    let source = Source::read(path)?;
    OwnRights::parse_text("the token's claim", &source.text)
        .map_err(|why| Failure::new(format!("{}: the rights {why}", path.display())))
}

fn filter(text: &str) -> Result<TopicFilter<'_>, Failure> {
    TopicFilter::parse(text, TopicLimits::NONE)
        .map_err(|error| Failure::new(format!("{text:?} is no topic filter: {error}")))
}
