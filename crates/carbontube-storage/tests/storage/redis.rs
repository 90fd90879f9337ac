//! The Redis store against a real server, and its connection cut in every bad moment.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use carbontube_storage::conformance::{Place, conformance};
use carbontube_storage::{
    Commit, InDoubt, Log, LostPages, OpenMode, OpenOptions, PageSeq, Store, StoreError, examine,
    export, import, open,
};
use tempfile::TempDir;

/// A server of our own, on a free port, gone when dropped.
struct Server {
    process: Child,
    port: u16,
    folder: TempDir,
    settings: Vec<String>,
}

impl Server {
    /// Starts a server; `None` when none is installed, which is said aloud.
    fn start(settings: &[&str]) -> Option<Server> {
        let settings: Vec<String> = settings.iter().map(|&text| text.to_owned()).collect();
        let installed = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !installed {
            assert!(
                std::env::var_os("CARBONTUBE_REQUIRE_ALL").is_none_or(|value| value != "1"),
                "redis-server is not on PATH and CARBONTUBE_REQUIRE_ALL=1"
            );
            println!("skipped: redis-server is not on PATH");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let port = free_port();
            let process = launch(port, folder.path(), &settings);
            let mut server = Server {
                process,
                port,
                folder: tempfile::tempdir_in(folder.path()).unwrap(),
                settings: settings.clone(),
            };
            if server.is_ready() {
                server.folder = folder;
                return Some(server);
            }
        }
        panic!("redis-server did not start");
    }

    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(answer) = self.say("PING")
                && answer.starts_with("+PONG")
            {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn say(&self, line: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = launch(self.port, self.folder.path(), &self.settings);
        assert!(self.is_ready(), "redis-server did not start again");
    }

    fn uri(&self, db: u32) -> String {
        format!("redis://127.0.0.1:{}/{db}", self.port)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn launch(port: u16, folder: &std::path::Path, settings: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder)
        .args(settings)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SAFE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

struct Namespace {
    uri: String,
    pipeline: String,
}

impl Place for Namespace {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        open(&self.uri, &OpenOptions::new(&self.pipeline))
    }
}

fn page(seq: u64) -> Commit {
    let mut commit = Commit::new();
    commit.put(Log::Journal, PageSeq(seq), seq.to_be_bytes().to_vec());
    commit
}

fn pages(store: &mut dyn Store) -> BTreeMap<u64, Vec<u8>> {
    let mut pages = BTreeMap::new();
    store
        .scan(Log::Journal, PageSeq(0), &mut |seq, page| {
            pages.insert(seq.0, page.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    pages
}

#[test]
fn redis_conforms() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let number = AtomicU64::new(0);
    conformance(&mut || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        Box::new(Namespace {
            uri: server.uri(3),
            pipeline: format!("conformance-{number}"),
        })
    });
}

#[test]
fn redis_keeps_pipelines_apart_and_survives_the_end_of_the_server() {
    let Some(mut server) = Server::start(&SAFE) else {
        return;
    };
    let uri = server.uri(0);
    let mut videos = open(&uri, &OpenOptions::new("videos")).unwrap();
    let mut music = open(&uri, &OpenOptions::new("music")).unwrap();
    assert!(videos.warnings().is_empty(), "{:?}", videos.warnings());
    for seq in 1..=3 {
        videos.commit(&page(seq)).unwrap();
    }
    music.commit(&page(1)).unwrap();
    drop((videos, music));
    server.kill();
    server.restart();
    let mut videos = open(&uri, &OpenOptions::new("videos")).unwrap();
    assert_eq!(pages(videos.as_mut()).len(), 3);
    assert!(videos.usage().unwrap().bytes > 0);
    let mut music = open(&uri, &OpenOptions::new("music")).unwrap();
    assert_eq!(pages(music.as_mut()).len(), 1);
    let options = OpenOptions {
        mode: OpenMode::Existing,
        ..OpenOptions::new("films")
    };
    let error = open(&uri, &options).err().unwrap();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[test]
fn server_that_is_away_is_unavailable_and_loses_nothing() {
    let Some(mut server) = Server::start(&SAFE) else {
        return;
    };
    let uri = server.uri(0);
    let mut store = open(&uri, &OpenOptions::new("p")).unwrap();
    store.commit(&page(1)).unwrap();
    server.kill();
    let error = store.commit(&page(2)).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    let error = store.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    server.restart();
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    store.commit(&page(2)).unwrap();
    assert_eq!(pages(store.as_mut()).len(), 2);
}

#[test]
fn server_that_comes_back_empty_is_refused() {
    let Some(mut server) = Server::start(&["--appendonly", "no"]) else {
        return;
    };
    let mut store = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    assert!(store.warnings()[0].contains("no append-only file"));
    store.commit(&page(1)).unwrap();
    server.kill();
    server.restart();
    assert!(store.commit(&page(2)).is_err());
    let error = store.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn head_that_was_changed_by_others_is_noticed_by_the_next_commit() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let mut store = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    store.commit(&page(1)).unwrap();
    assert_eq!(server.say("SET carbontube:{p}:head x").unwrap(), "+OK\r\n");
    let error = store.commit(&page(2)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(server.say("HLEN carbontube:{p}:journal").unwrap(), ":1\r\n");
}

#[test]
fn server_that_promises_less_than_before_is_not_used() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let mut store = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    server.say("CONFIG SET maxmemory 1mb").unwrap();
    store.commit(&page(1)).unwrap_err();
    server.say("CONFIG SET maxmemory 0").unwrap();
    server.say("CONFIG SET appendonly no").unwrap();
    let error = store.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("no append-only file"), "{error}");
    server.say("CONFIG SET appendonly yes").unwrap();
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    store.commit(&page(1)).unwrap();
}

#[test]
fn server_out_of_memory_is_full_and_goes_on_when_there_is_room() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let mut store = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    store.commit(&page(1)).unwrap();
    server.say("CONFIG SET maxmemory 1mb").unwrap();
    let error = store.commit(&page(2)).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    server.say("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    store.commit(&page(2)).unwrap();
}

#[test]
fn lease_of_a_manager_that_is_gone_runs_out_and_its_late_commits_are_refused() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let proxy = Proxy::start(server.port);
    let mut stale = open(&proxy.uri(), &OpenOptions::new("p")).unwrap();
    stale.commit(&page(1)).unwrap();
    // Nothing gets through any more, so its lease is not renewed.
    proxy.set(Manner::Deaf);
    let started = Instant::now();
    let mut next = loop {
        match open(&server.uri(0), &OpenOptions::new("p")) {
            Ok(store) => break store,
            Err(StoreError::Locked { holder, .. }) => {
                assert!(holder.starts_with("process "), "{holder}");
            }
            Err(other) => panic!("{other}"),
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it never ran out"
        );
        thread::sleep(Duration::from_millis(50));
    };
    next.commit(&page(2)).unwrap();
    proxy.set(Manner::Honest);
    let error = stale.commit(&page(2)).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Fenced { .. } | StoreError::Unavailable { .. }
        ),
        "{error:?}"
    );
    let error = stale.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    drop(next);
    let error = stale.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error:?}");
    assert!(!error.is_temporary());
    drop(stale);
    let mut last = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    assert_eq!(pages(last.as_mut()).len(), 2);
}

#[test]
fn connection_cut_at_any_byte_confirms_nothing_falsely_and_applies_nothing_twice() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let proxy = Proxy::start(server.port);
    let mut store = open(&proxy.uri(), &OpenOptions::new("p")).unwrap();
    let mut outcomes = BTreeMap::new();
    let mut seq = 1;
    for round in 0..120_u64 {
        // Every third answer is lost instead of a request.
        proxy.set(match round % 3 {
            0 => Manner::CutAnswerAfter(0),
            _ => Manner::CutRequestAfter(round * 17),
        });
        let before = store.bounds(Log::Journal).next;
        match store.commit(&page(seq)) {
            Ok(()) => {
                *outcomes.entry("confirmed").or_insert(0) += 1;
                seq += 1;
                proxy.set(Manner::Honest);
                continue;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
            }
        }
        proxy.set(Manner::Honest);
        match store.reopen().unwrap() {
            Some(InDoubt::Applied) => {
                *outcomes.entry("applied").or_insert(0) += 1;
                seq += 1;
            }
            Some(InDoubt::NotApplied) => {
                *outcomes.entry("not applied").or_insert(0) += 1;
                assert_eq!(store.bounds(Log::Journal).next, before);
            }
            None => panic!("a commit failed and nobody is in doubt"),
        }
        assert_eq!(store.bounds(Log::Journal).next, PageSeq(seq));
    }
    let found = pages(store.as_mut());
    let expected: BTreeMap<_, _> = (1..seq)
        .map(|seq| (seq, seq.to_be_bytes().to_vec()))
        .collect();
    assert_eq!(found, expected);
    for outcome in ["applied", "not applied"] {
        assert!(
            outcomes.get(outcome).is_some_and(|&times| times > 10),
            "{outcomes:?}"
        );
    }
}

#[test]
fn late_commit_of_a_cut_connection_can_no_longer_happen_after_reopening() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let proxy = Proxy::start(server.port);
    let mut store = open(&proxy.uri(), &OpenOptions::new("p")).unwrap();
    store.commit(&page(1)).unwrap();
    proxy.set(Manner::HoldRequest);
    let error = store.commit(&page(2)).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    proxy.set(Manner::Honest);
    assert_eq!(store.reopen().unwrap(), Some(InDoubt::NotApplied));
    proxy.deliver_held();
    assert_eq!(pages(store.as_mut()).len(), 1);
    store
        .commit(Commit::new().put(Log::Journal, PageSeq(2), b"other".to_vec()))
        .unwrap();
    assert_eq!(pages(store.as_mut())[&2], b"other");
}

#[test]
fn one_bad_page_in_redis_does_not_stop_the_others() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let mut store = open(&server.uri(0), &OpenOptions::new("p")).unwrap();
    for seq in 1..=3 {
        store.commit(&page(seq)).unwrap();
    }
    server.say("HSET carbontube:{p}:journal 1 rubbish").unwrap();
    server.say("HDEL carbontube:{p}:journal 2").unwrap();
    for seq in [1, 2] {
        let error = store.read(Log::Journal, PageSeq(seq)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
    assert!(store.read(Log::Journal, PageSeq(3)).unwrap().is_some());
    store.commit(&page(4)).unwrap();
}

#[test]
fn damage_in_redis_is_refused_examined_and_exported() {
    let Some(server) = Server::start(&SAFE) else {
        return;
    };
    let options = OpenOptions::new("p");
    let uri = server.uri(0);
    let mut store = open(&uri, &options).unwrap();
    for seq in 1..=4 {
        store.commit(&page(seq)).unwrap();
    }
    drop(store);
    assert!(examine(&uri, &options).unwrap().is_sound());
    assert_eq!(
        server.say("HDEL carbontube:{p}:journal 2").unwrap(),
        ":1\r\n"
    );
    assert_eq!(
        server.say("HSET carbontube:{p}:journal 4 rubbish").unwrap(),
        ":0\r\n"
    );
    let error = open(&uri, &options).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let report = examine(&uri, &options).unwrap();
    assert_eq!(report.journal.missing, [2..3, 4..5], "{report}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export");
    export(&uri, &options, &file).unwrap();
    let error = import(&file, &server.uri(1), &options, LostPages::Refuse).unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error:?}");
    let error = import(&file, &uri, &options, LostPages::GiveUp).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    let imported = import(&file, &server.uri(1), &options, LostPages::GiveUp).unwrap();
    assert_eq!((imported.pages, imported.lost), (2, 2));
    let mut store = open(&server.uri(1), &options).unwrap();
    let found = pages(store.as_mut());
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(found[&2].is_empty() && found[&4].is_empty());
}

/// What a proxy does to the bytes that pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Takes requests and connections and passes nothing on.
    Deaf,
    /// Cuts the connection after so many bytes of requests.
    CutRequestAfter(u64),
    /// Passes a request on, and cuts the connection after so many bytes of the answer.
    CutAnswerAfter(u64),
    /// Keeps a request back; its connection to the server stays open.
    HoldRequest,
}

/// Stands between a store and its server.
struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<(Manner, u64)>,
    held: Mutex<Vec<Held>>,
}

/// A request kept back, and how many bytes its connection has answered so far.
struct Held {
    server: TcpStream,
    request: Vec<u8>,
    answered: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            manner: Mutex::new((Manner::Honest, 0)),
            held: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), shared) = (client, Arc::clone(&accepting)) else {
                    break;
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let (client_in, server_out) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let backward = Arc::clone(&shared);
                let answered = Arc::new(AtomicU64::new(0));
                let counted = Arc::clone(&answered);
                thread::spawn(move || pass(client_in, server_out, &shared, answered, true));
                thread::spawn(move || pass(server, client, &backward, counted, false));
            }
        });
        Proxy { port, shared }
    }

    fn uri(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = (manner, 0);
    }

    /// Delivers what was held back and waits for the server's answers to it.
    fn deliver_held(&self) {
        let mut held = Vec::new();
        wait_until("a request was held", || {
            held = std::mem::take(&mut *self.shared.held.lock().unwrap());
            !held.is_empty()
        });
        for mut held in held {
            let before = held.answered.load(Ordering::SeqCst);
            held.server.write_all(&held.request).unwrap();
            wait_until("the server has answered it", || {
                held.answered.load(Ordering::SeqCst) > before
            });
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    shared: &Shared,
    answered: Arc<AtomicU64>,
    requests: bool,
) {
    let mut bytes = [0; 1 << 16];
    let mut held = Vec::new();
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !requests {
            answered.fetch_add(read as u64, Ordering::SeqCst);
        }
        let (manner, passed) = {
            let mut manner = shared.manner.lock().unwrap();
            let passed = manner.1;
            let counted = match manner.0 {
                Manner::CutRequestAfter(_) => requests,
                Manner::CutAnswerAfter(_) => !requests,
                _ => false,
            };
            if counted {
                manner.1 += read as u64;
            }
            (manner.0, passed)
        };
        let end = match manner {
            Manner::CutRequestAfter(most) if requests => most.saturating_sub(passed),
            Manner::CutAnswerAfter(most) if !requests => most.saturating_sub(passed),
            Manner::Deaf => continue,
            Manner::HoldRequest if requests => {
                held.extend_from_slice(&bytes[..read]);
                continue;
            }
            _ => read as u64,
        };
        let end = end.min(read as u64) as usize;
        if to.write_all(&bytes[..end]).is_err() || end < read {
            break;
        }
    }
    if held.is_empty() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    } else {
        shared.held.lock().unwrap().push(Held {
            server: to,
            request: held,
            answered,
        });
    }
}
