//! `top`: the live state of a pipeline in a terminal.
//!
//! One thread has the terminal and draws; the rest asks the manager and follows its
//! events. They talk over two channels, so that a slow manager never holds up a key.

mod draw;
mod picture;
mod screen;

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::admin::connect;
use super::arguments::TopArguments;
use super::{block_on, client_failure};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use picture::{Asker, Told};
use screen::{Next, Screen};

/// How long a key may wait, and how often the ages on the screen move on.
const FRAME: Duration = Duration::from_millis(100);

pub(crate) fn top(arguments: TopArguments) -> Outcome<Exit> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("top needs a terminal")
            .hint("`carbontube stats --json` and `carbontube tail --json` are for programs"));
    }
    // Before the screen is taken: an error shall stay readable.
    let client = block_on(async {
        let client = connect(&arguments.api, arguments.timeout).await?;
        client
            .info()
            .await
            .map_err(|error| client_failure(&error))?;
        Ok::<_, Failure>(client)
    })?;
    let (told, news) = channel();
    let (ask, wishes) = async_channel::unbounded();
    let asker = Asker::new(client, arguments.api, told);
    async_std::task::spawn(asker.run(wishes));
    let mut screen = Screen::new(ask, arguments.read_only);
    let terminal = ratatui::try_init()
        .map_err(|error| Failure::from_error(Exit::Failure, &error).hint("is TERM set?"))?;
    let shown = show(terminal, &mut screen, &news);
    ratatui::restore();
    shown.map_err(|error| Failure::from_error(Exit::Failure, &error))?;
    Ok(Exit::Success)
}

fn show(
    mut terminal: DefaultTerminal,
    screen: &mut Screen,
    news: &Receiver<Told>,
) -> std::io::Result<()> {
    loop {
        for told in news.try_iter() {
            screen.hear(told, Instant::now());
        }
        terminal.draw(|frame| draw::draw(frame, screen, Instant::now()))?;
        if !event::poll(FRAME)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && screen.press(key) == Next::Leave
        {
            return Ok(());
        }
    }
}
