//! `rotamq http`: who may use a broker's HTTP port, and as what.
//!
//! Owns the arguments and what is printed. Where a password comes from is
//! [`passwd`](super::passwd)'s; it is never an argument.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::answer::Column;
use super::arguments::span;
use super::clients::Page;
use super::http::{Api, Common, Route};
use super::passwd::read_password;
use super::table::shown;
use super::{Failure, Outcome, say};

const USERS: [Column<'_>; 2] = [("USER", "name"), ("ROLE", "role")];
const TOKENS: [Column<'_>; 5] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("ROLE", "role"),
    ("CREATED (UTC)", "created_at_ms"),
    ("EXPIRES (UTC)", "expires_at_ms"),
];

/// What `rotamq http` is told.
#[derive(clap::Args, Clone)]
pub struct HttpUsersArguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// Who logs in with a password, as at the dashboard
    #[command(subcommand)]
    User(UserCommand),
    /// What programs show instead of a password
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand, Clone)]
enum UserCommand {
    /// Add a user
    ///
    /// Asks for the password, or reads the first line of standard input if that is no terminal.
    #[command(after_help = "\
Examples:
  rotamq http user add ann --role operator
  rotamq http user add bob --role viewer < password.txt")]
    Add {
        name: String,
        /// What the user may do
        #[arg(long, value_enum)]
        role: Role,
    },
    /// List the users
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq http user list"
    )]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Give a user another password, which is asked for; who is logged in has to log in again
    #[command(after_help = "\
Examples:
  rotamq http user password ann")]
    Password { name: String },
    /// Give a user another role
    #[command(after_help = "\
Examples:
  rotamq http user role ann admin")]
    Role {
        name: String,
        #[arg(value_enum)]
        role: Role,
    },
    /// Remove a user
    #[command(after_help = "\
Examples:
  rotamq http user remove ann")]
    Remove { name: String },
}

#[derive(Subcommand, Clone)]
enum TokenCommand {
    /// Make a token, which is printed this once
    #[command(after_help = "\
Examples:
  rotamq http token create prometheus --role viewer > token
  rotamq http token create deploy --role operator --expires 90d --json")]
    Create {
        /// What it is for
        name: String,
        /// What may be done with it
        #[arg(long, value_enum)]
        role: Role,
        /// How long it holds, as in 12h or 90d; else until it is revoked
        #[arg(long, value_name = "SPAN", value_parser = span)]
        expires: Option<Duration>,
    },
    /// List the tokens, without what is secret of them
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq http token list"
    )]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Make a token hold no longer
    #[command(after_help = "\
Examples:
  rotamq http token revoke 7f3a")]
    Revoke {
        /// As `list` shows it
        id: String,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Sees all but payloads, traces and users
    Viewer,
    /// Also changes what runs, and sees payloads
    Operator,
    /// Also users, tokens, reloading, bans and the log's level
    Admin,
}

impl Role {
    /// What it is called in the API.
    fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Looks at users and tokens, or changes them.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: HttpUsersArguments) -> Outcome {
    let json = arguments.common.json;
    arguments.common.run(async |api| match arguments.command {
        Command::User(command) => user(api, command, json).await,
        Command::Token(command) => token(api, command, json).await,
    })
}

async fn user(api: &mut Api, command: UserCommand, json: bool) -> Outcome {
    let of = |name: &str| Route::to(&["users", name]);
    match command {
        UserCommand::Add { name, role } => {
            let body = json!({
                "name": name,
                "password": password(&name)?,
                "role": role.name(),
            });
            let route = Route::to(&["users"]);
            let done: Value = api.change(Method::POST, &route, Some(body)).await?;
            say(json, &done, || format!("{}: added.\n", shown(&name)))
        }
        UserCommand::List { page } => {
            page.print(api, &Route::to(&["users"]), (&USERS, json))
                .await
        }
        UserCommand::Password { name } => {
            let body = json!({ "password": password(&name)? });
            let done: Value = api.change(Method::PATCH, &of(&name), Some(body)).await?;
            say(json, &done, || format!("{}: changed.\n", shown(&name)))
        }
        UserCommand::Role { name, role } => {
            let body = json!({ "role": role.name() });
            let done: Value = api.change(Method::PATCH, &of(&name), Some(body)).await?;
            say(json, &done, || {
                format!("{}: is {} now.\n", shown(&name), role.name())
            })
        }
        UserCommand::Remove { name } => {
            let done: Value = api.change(Method::DELETE, &of(&name), None).await?;
            say(json, &done, || format!("{}: removed.\n", shown(&name)))
        }
    }
}

async fn token(api: &mut Api, command: TokenCommand, json: bool) -> Outcome {
    match command {
        TokenCommand::Create {
            name,
            role,
            expires,
        } => {
            let mut body = json!({ "name": name, "role": role.name() });
            if let Some(span) = expires {
                body["expires_secs"] = span.as_secs().into();
            }
            let route = Route::to(&["tokens"]);
            let made: Value = api.change(Method::POST, &route, Some(body)).await?;
            // The token alone: a script puts it where it is needed.
            let token = made["token"].as_str().unwrap_or_default();
            say(json, &made, || format!("{token}\n"))
        }
        TokenCommand::List { page } => {
            page.print(api, &Route::to(&["tokens"]), (&TOKENS, json))
                .await
        }
        TokenCommand::Revoke { id } => {
            let route = Route::to(&["tokens", &id]);
            let done: Value = api.change(Method::DELETE, &route, None).await?;
            say(json, &done, || format!("{}: revoked.\n", shown(&id)))
        }
    }
}

fn password(name: &str) -> Result<String, Failure> {
    let password = read_password(name)?;
    String::from_utf8(password)
        .map_err(|_| Failure::new("the password is no UTF-8: nothing was changed"))
}
