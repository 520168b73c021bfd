use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "rotamq", version, about)]
enum Command {
    Bench(rotamq::cli::bench::Args),
}

fn main() -> ExitCode {
    let Command::Bench(args) = Command::parse();
    match rotamq::cli::bench::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rotamq: {error}");
            ExitCode::FAILURE
        }
    }
}
