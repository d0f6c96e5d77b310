//! The `haechi` command.

use clap::Parser;
use haechi::control::cli;

fn main() -> std::process::ExitCode {
    if let Err(line) = haechi::base::cpu::check() {
        eprintln!("haechi: {line}");
        return std::process::ExitCode::FAILURE;
    }
    let cli = cli::Cli::parse();
    #[cfg(feature = "dpdk")]
    if let cli::Command::Run(args) = &cli.command {
        return haechi::runtime::launch::run(&args.config);
    }
    cli::execute(cli)
}
