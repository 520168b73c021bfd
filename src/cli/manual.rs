//! `rotamq completions` and `rotamq man`: what is known of the command line, for
//! shells and for man(1).
//!
//! Owns how a page is put together; all that it says is said by the arguments
//! themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{EXIT_CODES, Failure, Outcome, print};

/// Begins what stands behind the options.
const EXAMPLES: &str = "Examples:";

/// What `rotamq completions` is told.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rotamq completions bash > /etc/bash_completion.d/rotamq
  rotamq completions zsh > ~/.zfunc/_rotamq
  source <(rotamq completions bash)")]
pub struct CompletionsArguments {
    #[arg(value_enum)]
    shell: Shell,
}

/// What `rotamq man` is told.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rotamq man | man -l -
  rotamq man /usr/local/share/man/man1")]
pub struct ManArguments {
    /// Write a page of each command into this folder; else that of rotamq itself is printed
    dir: Option<PathBuf>,
}

/// Prints what a shell reads to complete the arguments of `command`.
///
/// # Errors
/// Standard output cannot be written.
pub fn complete(arguments: &CompletionsArguments, mut command: Command) -> Outcome {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints the manual page of `command`, or writes those of all its commands.
///
/// # Errors
/// Standard output, or a file, cannot be written.
pub fn write(arguments: &ManArguments, command: Command) -> Outcome {
    let mut command = command.disable_help_subcommand(true);
    // Names of commands are whole from here on.
    command.build();
    match &arguments.dir {
        None => print(&String::from_utf8_lossy(&page(&command)?)),
        Some(dir) => {
            fs::create_dir_all(dir)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
            write_all(&command, dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write_all(command: &Command, dir: &Path) -> Result<(), Failure> {
    let path = dir.join(format!("{}.1", full_name(command)));
    fs::write(&path, page(command)?)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    for command in command.get_subcommands() {
        write_all(command, dir)?;
    }
    Ok(())
}

/// As in `rotamq-queue-ls`.
fn full_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let source = concat!("RotaMQ ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("RotaMQ");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    behind(command).to_writer(&mut page)?;
    Ok(page)
}

/// What the help says behind the options, exit codes and other pages.
fn behind(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let help = help.replace(EXIT_CODES, "");
    let (notes, examples) = help.split_once(EXAMPLES).unwrap_or((&help, ""));
    section(&mut roff, "NOTES", notes);
    section(&mut roff, "EXAMPLES", examples);
    let codes = EXIT_CODES.split_once('\n').map_or("", |(_, codes)| codes);
    section(&mut roff, "EXIT STATUS", codes);
    let name = full_name(command);
    let mut others: Vec<String> = (name.match_indices('-'))
        .map(|(end, _)| name[..end].to_owned())
        .collect();
    let below = command.get_subcommands().map(full_name);
    others.extend(below.map(str::to_owned));
    if !others.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        let last = others.len() - 1;
        for (at, other) in others.into_iter().enumerate() {
            let end = if at < last { "(1)," } else { "(1)" };
            roff.text([bold(other), roman(end)]);
        }
    }
    roff
}

/// Lines that stay lines.
fn section(roff: &mut Roff, title: &str, text: &str) {
    let text = text.trim_matches('\n');
    if text.trim().is_empty() {
        return;
    }
    roff.control("SH", [title]);
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}
