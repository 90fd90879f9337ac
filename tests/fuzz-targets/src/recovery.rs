//! The manager's start on arbitrary pages, and its life on what it made of them.

use bytes::Bytes;
use carbontube_manager::core::{ClientId, Input};
use carbontube_protocol::message::{HeldFor, Query, QueryRequest};
use carbontube_storage::{Log, PageSeq};

use crate::Target;
use crate::bed::{Bed, Pages};
use crate::draw::{Draw, push_piece};
use crate::manager;
use crate::samples;

/// The target.
pub const TARGET: Target = Target {
    name: "recovery",
    about: "arbitrary pages and records at a manager's start, and its life on them",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 8192,
};

/// A page number that is far out, but one that a manager takes.
const FAR: u64 = u64::MAX >> 16;

/// Pages are given as they are, or made of records: a byte says which, and of which log.
pub fn run(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut pages = Pages::new();
    let mut next = [PageSeq::FIRST; 2];
    let far = draw.byte();
    if far > 250 {
        let end = if far == 255 { u64::MAX } else { FAR };
        next = [PageSeq(end - u64::from(draw.byte())); 2];
    }
    while !draw.is_empty() {
        let how = draw.byte();
        let log = Log::ALL[usize::from(how & 1)];
        let page = match how >> 1 & 3 {
            0 => Bytes::copy_from_slice(draw.piece()),
            1 => records(&mut draw),
            2 => piece_of_record(&mut draw, b'F'),
            _ => piece_of_record(&mut draw, b'N'),
        };
        let seq = &mut next[usize::from(how & 1)];
        pages.insert((log.tag(), *seq), page);
        *seq = seq.next();
    }
    let bed = match Bed::on(pages) {
        Ok(bed) => bed,
        Err(error) => {
            let text = error.to_string();
            return assert!(!text.is_empty() && text.len() < 2048, "{text}");
        }
    };
    live(bed);
}

/// A page of whole records, each a head behind its length and a payload.
fn records(draw: &mut Draw<'_>) -> Bytes {
    let mut page = vec![1, b'W'];
    for _ in 0..draw.below(6) {
        let (head, payload) = (draw.piece(), draw.short_piece());
        let length = 4 + head.len() + payload.len();
        page.extend(u32::try_from(length).unwrap_or(0).to_le_bytes());
        page.extend(u32::try_from(head.len()).unwrap_or(0).to_le_bytes());
        page.extend(head);
        page.extend(payload);
    }
    Bytes::from(page)
}

fn piece_of_record(draw: &mut Draw<'_>, kind: u8) -> Bytes {
    let mut page = vec![1, kind];
    if kind == b'F' {
        let total = u32::try_from(draw.number()).unwrap_or(u32::MAX);
        page.extend(total.to_le_bytes());
    }
    page.extend(draw.piece());
    Bytes::from(page)
}

/// A worker comes, jobs go out, clients ask, commits and restarts happen.
fn live(mut bed: Bed) {
    let ask = |bed: &mut Bed, query| {
        let request = QueryRequest { request: 1, query };
        bed.input(Input::Query {
            client: ClientId(1),
            request,
        });
    };
    ask(&mut bed, Query::Stats);
    let ids: Vec<_> = bed.core.live_jobs().map(|job| job.id.clone()).collect();
    for id in ids.into_iter().take(20) {
        ask(&mut bed, Query::Job { id });
    }
    for (worker, phase) in [(1, "encode"), (2, "split")] {
        let mut beat = samples::heartbeat(samples::worker(worker), Vec::new());
        beat.job_type = samples::job_type(phase);
        beat.managers = vec![HeldFor {
            manager: bed.core.manager_id(),
            epoch: bed.core.epoch(),
            sequence: 0,
            held: Vec::new(),
        }];
        let port = 5050 + u16::try_from(worker).unwrap_or(0);
        beat.address = carbontube_protocol::Address::tcp("10.0.0.1", port);
        bed.input(Input::Heartbeat(beat));
        for pipe in bed.pipes.clone() {
            bed.input(Input::PipeUp { pipe });
        }
    }
    bed.quiet();
    bed.now = bed.now + std::time::Duration::from_secs(10);
    bed.input(Input::Tick);
    bed.quiet();
    assert!(bed.asked.is_empty(), "no answer to {:?}", bed.asked);
    bed.restart();
    bed.quiet();
}

fn seeds() -> Vec<Vec<u8>> {
    let journal = manager::journal();
    let mut whole = vec![0];
    for ((tag, _), page) in &journal {
        whole.push(u8::from(*tag == Log::History.tag()));
        push_piece(&mut whole, page);
    }
    let mut all = vec![whole];
    // Records one by one, so that mutations reach their heads with lengths that fit.
    for ((tag, _), page) in &journal {
        let mut input = vec![0];
        let mut rest = page.slice(2..);
        if page[1] != b'W' {
            continue;
        }
        while rest.len() > 8 {
            let number = |at: usize| {
                u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes")) as usize
            };
            let (length, head) = (number(0), number(4));
            let record = rest.slice(8..4 + length);
            input.extend([2 | u8::from(*tag == Log::History.tag()), 1]);
            push_piece(&mut input, &record[..head]);
            let payload = &record[head..record.len().min(head + 255)];
            input.push(u8::try_from(payload.len()).unwrap_or(0));
            input.extend_from_slice(payload);
            rest = rest.slice(4 + length..);
        }
        all.push(input);
    }
    all
}

const DICTIONARY: &[&[u8]] = &[
    b"\x01W",
    b"\x01F",
    b"\x01N",
    b"\x06videos",
    b"\x06encode",
    b"\x05split",
    b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xfc\xff\xff\xff\xff",
    b"\xfb\xff\xff",
    b"\0\0\0\0",
];
