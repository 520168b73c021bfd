//! `rotamq access`: what rules say, without a broker.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Outcome, say};
use crate::access::explain::{Action, Question};
use crate::access::rules::{Rules, Strictness};
use crate::access::{OwnRights, read_rules};
use crate::config::{Effective, Flags, Source};
use crate::message::{ClientId, Identity, Qos};

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
        what: Action,
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
            let question = Question {
                action: what,
                topic: &topic,
                qos: Qos::from_bits(qos).expect("clap bounds it"),
                retain,
                strictness,
            };
            let explained = question.explain(&rights).map_err(Failure::new)?;
            let told = json!({ "allowed": explained.is_allowed, "because": explained.because });
            say(json, &told, || {
                format!("{}\n", explained.because.join("\n"))
            })?;
            Ok(ExitCode::from(u8::from(!explained.is_allowed)))
        }
    }
}

fn read_claim(path: &Path) -> Result<OwnRights, Failure> {
    let source = Source::read(path)?;
    OwnRights::parse_text("the token's claim", &source.text)
        .map_err(|why| Failure::new(format!("{}: the rights {why}", path.display())))
}
