//! Open pages without browsers, as a process of its own: each holds an event stream open
//! with every topic and reads all that it is sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, bail, ensure};
use argh::FromArgs;

/// Everything that a page can follow.
const TOPICS: &str = "pipelines,workers,points,jobs,progress,logs,notes";

/// Hold event streams open and read them until killed.
#[derive(FromArgs)]
#[argh(subcommand, name = "viewers")]
pub(crate) struct Viewers {
    /// the address of the web interface
    #[argh(option)]
    url: String,
    /// how many pages
    #[argh(option)]
    count: usize,
    /// file that appears once every page was sent something
    #[argh(option)]
    ready_file: PathBuf,
}

/// Reads until a page is cut off, which is a failure.
pub(crate) fn run(viewers: &Viewers) -> Result<()> {
    let host = viewers
        .url
        .strip_prefix("http://")
        .context("an http address")?
        .trim_end_matches('/')
        .to_owned();
    let (told, heard) = channel();
    let mut pages = Vec::new();
    for _ in 0..viewers.count {
        let (host, told) = (host.clone(), told.clone());
        pages.push(std::thread::spawn(move || page(&host, &told)));
    }
    drop(told);
    for _ in 0..viewers.count {
        heard.recv().context("a page was not served")?;
    }
    let unfinished = viewers.ready_file.with_extension("unfinished");
    std::fs::write(&unfinished, "{}")?;
    std::fs::rename(&unfinished, &viewers.ready_file)?;
    for page in pages {
        match page.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a page panicked"),
        }
    }
    bail!("all pages were cut off")
}

fn page(host: &str, told: &Sender<()>) -> Result<()> {
    let mut stream = TcpStream::connect(host)?;
    let request = format!("GET /api/v1/stream?topics={TOPICS} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = vec![0; 64 << 10];
    let n = stream.read(&mut bytes)?;
    let head = String::from_utf8_lossy(&bytes[..n]);
    ensure!(head.starts_with("HTTP/1.1 200 "), "no stream: {head}");
    told.send(())?;
    while stream.read(&mut bytes)? > 0 {}
    bail!("the web interface ended the stream of a page")
}
