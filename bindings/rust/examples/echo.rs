// SPDX-License-Identifier: GPL-3.0-or-later
//! An echo server: `echo PORT`. It ends on SIGTERM.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nunc_stans_rs::{Event, Pool};

/// One callback for each time that the client has sent something.
fn serve(event: &Event<'_>, client: &mut TcpStream) {
    let mut bytes = [0; 4096];
    let read = if event.is_timed_out() { Ok(0) } else { client.read(&mut bytes) };
    match read {
        Ok(n) if n > 0 && client.write_all(&bytes[..n]).is_ok() => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        _ => event.done(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("7007".into()).parse()?;
    let pool = Pool::new(2)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on port {}", listener.local_addr()?.port());

    let clients = pool.persist().timeout(Duration::from_secs(30));
    let _accept = pool.in_loop().persist().on_readable(listener, move |event, listener| match listener.accept() {
        Ok((client, _)) => {
            if let Ok(job) = clients.on_readable(client, serve) {
                job.detach();
            }
        }
        // Out of descriptors: rest, rather than spin.
        Err(_) => _ = event.rearm_after(Duration::from_millis(100)),
    })?;

    let handle = pool.to_handle();
    let _stop = pool.on_signal(libc::SIGTERM, move |_| handle.shutdown())?;
    pool.wait()?;
    println!("done");
    Ok(())
}
