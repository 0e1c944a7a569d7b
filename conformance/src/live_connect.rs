//! `deputize connect` as HTTP on loopback: its process, where it listens, and the secret of its start.

use crate::{dev::Dev, process::Process};

/// A running `deputize connect --listen`. It ends with this value.
pub struct LiveConnect {
    /// Its process.
    pub process: Process,
    /// URL of its MCP endpoint.
    pub url: String,
    /// What clients have to send as bearer token.
    pub secret: String,
}

impl LiveConnect {
    /// Starts it with the ready file of `dev` and these arguments besides; `name` tells its files from others.
    pub async fn start(dev: &Dev, name: &str, arguments: &[&str]) -> Self {
        let (secret, ready_file) = (dev.place(&format!("{name}.secret")), dev.ready_file());
        let fixed = [
            "connect",
            "--ready-file",
            ready_file.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--secret-file",
            secret.to_str().unwrap(),
        ];
        let all: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        let process = Process::start(&all, &dev.place(&format!("{name}.log")));
        process.wait_until(async || process.said().contains("/mcp\n")).await;
        let said = process.said();
        let mut words = said.split_whitespace();
        let url = words.rfind(|word| word.starts_with("http://127.0.0.1")).unwrap().to_owned();
        let metadata = std::fs::metadata(&secret).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
        let secret = std::fs::read_to_string(secret).unwrap();
        assert!(!said.contains(&secret), "it is in the file alone");
        Self { process, url, secret }
    }

    /// The header that its clients send.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}
