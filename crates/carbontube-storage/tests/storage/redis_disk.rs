//! Waiting for the disk of a Redis server, against a server of our own making.
//!
//! `WAITAOF` came with Redis 7.2, which is not installed everywhere; and no
//! real server can be told to have a disk that does not answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use carbontube_storage::{Commit, InDoubt, Log, OpenOptions, PageSeq, StoreError, open};

/// A server that knows just the calls the store makes.
#[derive(Default)]
struct Server {
    disk_answers: AtomicBool,
    waits: AtomicU64,
    stored: Mutex<Stored>,
}

#[derive(Default)]
struct Stored {
    epoch: u64,
    head: Option<Vec<u8>>,
    journal: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Server {
    fn start(self: &Arc<Server>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::clone(self);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(client));
            }
        });
        format!("redis://127.0.0.1:{port}/0")
    }

    fn serve(&self, client: TcpStream) {
        let mut input = BufReader::new(client.try_clone().unwrap());
        let mut output = client;
        while let Some(call) = read_call(&mut input) {
            if output.write_all(&self.answer(&call)).is_err() {
                return;
            }
        }
    }

    fn answer(&self, call: &[Vec<u8>]) -> Vec<u8> {
        let mut stored = self.stored.lock().unwrap();
        let word = |at: usize| String::from_utf8_lossy(&call[at]).to_string();
        match word(0).as_str() {
            "EXISTS" => format!(":{}\r\n", u8::from(stored.head.is_some())).into_bytes(),
            "COMMAND" => b"*1\r\n*1\r\n$7\r\nwaitaof\r\n".to_vec(),
            "CONFIG" => {
                let name = word(2);
                let value = match name.as_str() {
                    "appendonly" => "yes",
                    "appendfsync" => "everysec",
                    "maxmemory" => "0",
                    _ => "noeviction",
                };
                strings(&[&name, value])
            }
            "WAITAOF" => {
                self.waits.fetch_add(1, Ordering::SeqCst);
                let local = u8::from(self.disk_answers.load(Ordering::SeqCst));
                format!("*2\r\n:{local}\r\n:0\r\n").into_bytes()
            }
            "GET" => bulk(stored.head.as_deref()),
            "HKEYS" if word(1).ends_with("journal") => {
                let seqs = stored.journal.iter().map(|(seq, _)| bulk(Some(seq)));
                list(seqs.collect())
            }
            "HKEYS" => list(Vec::new()),
            "HMGET" => {
                let wanted = call[2..].iter().map(|seq| {
                    let found = stored.journal.iter().find(|(stored, _)| stored == seq);
                    bulk(found.map(|(_, page)| page.as_slice()))
                });
                list(wanted.collect())
            }
            // The scripts are told apart by their keys.
            "EVAL" => match word(2).as_str() {
                "2" if call.len() == 8 => {
                    stored.epoch += 1;
                    strings(&["claimed", &stored.epoch.to_string()])
                }
                "5" => {
                    stored.head = Some(call[12].clone());
                    let pages = word(13).parse().unwrap();
                    for page in call[14..].chunks(3).take(pages) {
                        stored.journal.push((page[1].clone(), page[2].clone()));
                    }
                    strings(&["stored", ""])
                }
                _ => b"+done\r\n".to_vec(),
            },
            _ => b"+OK\r\n".to_vec(),
        }
    }
}

fn read_call(input: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let number = |mark: char, input: &mut dyn BufRead| {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        line.trim().strip_prefix(mark)?.parse::<usize>().ok()
    };
    let parts = number('*', input)?;
    let mut call = Vec::new();
    for _ in 0..parts {
        let mut part = vec![0; number('$', input)? + 2];
        input.read_exact(&mut part).ok()?;
        part.truncate(part.len() - 2);
        call.push(part);
    }
    Some(call)
}

fn bulk(bytes: Option<&[u8]>) -> Vec<u8> {
    match bytes {
        None => b"$-1\r\n".to_vec(),
        Some(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
    }
}

fn list(parts: Vec<Vec<u8>>) -> Vec<u8> {
    [format!("*{}\r\n", parts.len()).into_bytes(), parts.concat()].concat()
}

fn strings(texts: &[&str]) -> Vec<u8> {
    list(
        texts
            .iter()
            .map(|text| bulk(Some(text.as_bytes())))
            .collect(),
    )
}

fn page(seq: u64) -> Commit {
    let mut commit = Commit::new();
    commit.put(Log::Journal, PageSeq(seq), vec![seq as u8]);
    commit
}

#[test]
fn commit_that_is_not_on_disk_is_not_confirmed() {
    let server = Arc::new(Server::default());
    server.disk_answers.store(true, Ordering::SeqCst);
    let mut store = open(&server.start(), &OpenOptions::new("p")).unwrap();
    assert!(store.warnings()[0].contains("waits up to a second"));
    let before = server.waits.load(Ordering::SeqCst);
    store.commit(&page(1)).unwrap();
    assert_eq!(server.waits.load(Ordering::SeqCst), before + 1);

    server.disk_answers.store(false, Ordering::SeqCst);
    let error = store.commit(&page(2)).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    // It is there to be seen, yet nothing may be said about it before it is on disk.
    let error = store.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");

    server.disk_answers.store(true, Ordering::SeqCst);
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::Applied));
    store.commit(&page(3)).unwrap();
    assert_eq!(store.bounds(Log::Journal).next, PageSeq(4));
}
