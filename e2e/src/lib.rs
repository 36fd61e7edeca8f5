//! Real processes and servers that are started, told things and killed: for the tests of the promises, and for
//! `windlass-torture`.

mod process;
mod services;

pub use process::Process;
pub use services::{Services, ServicesError};

/// A port of this machine's that nothing listens on now.
///
/// # Errors
/// When there is none left.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
