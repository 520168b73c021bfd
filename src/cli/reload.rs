//! `rotamq reload`: a broker reads its configuration again, which runs on a data
//! folder of this machine or has its HTTP port elsewhere.

use std::fmt::Write;

use hyper::Method;

use super::http::{Api, Common, Route};
use super::{Failure, Kind, Outcome, print};
use crate::config::Reloaded;
use crate::run::control::{Answer, AskError, Request, ask};

/// What `rotamq reload` is told.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Which file the broker reads, it was told at its start. Ends with 1 if the configuration is wrong, and \
with 5 if there is no broker.

Examples:
  rotamq reload
  rotamq reload --data /var/lib/rotamq
  rotamq reload --config /etc/rotamq/rotamq.toml --json
  rotamq reload --http https://mq.example.org:18080 --token-file token")]
pub struct ReloadArguments {
    #[command(flatten)]
    common: Common,
}

/// Has it read, and prints what has changed.
///
/// # Errors
/// All that is wrong with the configuration, and nothing is changed then; there
/// is no broker.
pub fn run(arguments: ReloadArguments) -> Outcome {
    let common = arguments.common;
    if common.is_elsewhere() {
        // Not to be given up on the way: what it says is what has been changed.
        return common.run_to_end(async |api: &mut Api| {
            let route = Route::to(&["reload"]);
            let reloaded: Reloaded = api.change(Method::POST, &route, None).await?;
            say(&reloaded, common.json)
        });
    }
    let data = std::path::absolute(common.folder()?)?;
    let shown = data.display();
    let answer = ask(&data, &Request::Reload).map_err(|error| match error {
        AskError::Nobody => Failure::of(
            Kind::Unavailable,
            format!("no broker runs on the data folder {shown}: name another one with --data, or with --http where it is"),
        ),
        error => Failure::new(format!("{shown}: {error}")),
    })?;
    match answer {
        Answer::Reloaded(reloaded) => say(&reloaded, common.json),
        Answer::NotReloaded { problems } => Err(Failure::new(format!(
            "{}\nnothing is changed",
            problems.join("\n")
        ))),
        Answer::Error(error) => Err(Failure::new(error)),
        _ => Err(Failure::new("the broker's answer is one to something else")),
    }
}

fn say(reloaded: &Reloaded, json: bool) -> Outcome {
    match json {
        true => print(&format!("{:#}\n", serde_json::to_value(reloaded)?)),
        false => print(&told(reloaded)),
    }
}

/// For people.
fn told(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for change in &reloaded.changed {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{change} ({})", change.applies());
    }
    for change in &reloaded.needs_restart {
        _ = writeln!(text, "needs a restart: {change}");
    }
    if text.is_empty() {
        text.push_str("No option has changed. The files that are named were read again.\n");
    }
    text
}
