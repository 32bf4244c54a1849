//! The `quorate` binary: it hands over to the library's command line and nothing else.

fn main() -> std::process::ExitCode {
    quorate::cli::main().into()
}
