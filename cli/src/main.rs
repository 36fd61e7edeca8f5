//! The `windlass` command.

/// Requests and jobs are many small allocations, made by one thread and freed by another: a fifth of an API's time goes into
/// them with glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    windlass_cli::main(std::env::args_os())
}
