/**
 * One filesystem's watchdog: a shell of its own that freezes and thaws it, and thaws it also when the agent dies, is stopped or is
 * late.
 *
 * Node can't issue FIFREEZE, and the agent must not be the only one who can thaw. So util-linux's fsfreeze does both, started by a
 * shell that was there before. Starting a program reads, but never writes, so it works from a frozen root filesystem too.
 *
 * Inside, a relay passes the agent's words on, adds `late` when the deadline passes and `gone` when the agent's end of the pipe
 * closes; the controller acts on them one by one. A freeze can't be undone while it is still being made; whatever came meanwhile
 * is acted on right after. The timer ends with the agent's words: by then whatever thaws has been said.
 *
 * The shell leaves the agent's control group, so that a service manager that kills the whole group does not leave a filesystem
 * frozen, and is not the one the kernel kills when memory is short.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const SCRIPT = `
export LC_ALL=C
trap '' HUP INT QUIT TERM PIPE TSTP TTIN TTOU
{ echo -1000 > /proc/$$/oom_score_adj; } 2>/dev/null
{ echo $$ > /sys/fs/cgroup/cgroup.procs || echo $$ > /sys/fs/cgroup/systemd/cgroup.procs; } 2>/dev/null
fsfreeze --version > /dev/null 2>&1 || { echo 'failed fsfreeze (util-linux) is not installed'; exit; }
# What is frozen can't be frozen once more.
is_frozen() {
  if problem=$(fsfreeze -f "$1" 2>&1); then
    fsfreeze -u "$1" > /dev/null 2>&1
    problem='somebody else thawed it'
    return 1
  fi
  case $problem in *': Device or resource busy') ;; *) return 1 ;; esac
}
echo ready
exec 3<&0
{
  timer=
  while read -r word seconds <&3; do
    case $word in freeze)
      {
        trap 'kill -KILL $!; exit' USR1
        sleep "$seconds" &
        wait $! && echo late
      } 2>/dev/null &
      timer=$! ;;
    esac
    echo "$word" 2>/dev/null || break
  done
  echo gone 2>/dev/null
  [ -z "$timer" ] || kill -USR1 "$timer" 2>/dev/null
} | {
  frozen=
  while read -r word; do
    case $word in
      freeze)
        if problem=$(fsfreeze -f "$1" 2>&1); then frozen=1; echo frozen 2>/dev/null
        else echo "failed $problem" 2>/dev/null; exit; fi ;;
      check)
        [ -n "$frozen" ] || exit
        if is_frozen "$1"; then echo frozen 2>/dev/null; else echo "lost $problem" 2>/dev/null; fi ;;
      hold)
        [ -n "$frozen" ] || exit
        # Where that can't be told, nothing may stay frozen: nobody watches over it from here on.
        if is_frozen "$1"; then echo held 2>/dev/null
        else fsfreeze -u "$1" > /dev/null 2>&1; echo "lost $problem" 2>/dev/null; fi
        exit ;;
      *)
        [ -n "$frozen" ] || exit
        if problem=$(fsfreeze -u "$1" 2>&1); then echo "thawed $word" 2>/dev/null
        else echo "lost $problem" 2>/dev/null; fi
        exit ;;
    esac
  done
}
`;

/** `thawed`: with the word that made it: `thaw` (ours), `late` or `gone`. `lost`: somebody else had thawed it. */
export type WatchdogAnswer = {
  word: 'ready' | 'frozen' | 'failed' | 'held' | 'thawed' | 'lost' | 'ended';
  detail: string;
};

export class Watchdog {
  readonly mountPoint: string;
  readonly #child: ChildProcess;
  readonly #answers: WatchdogAnswer[] = [];
  #ended = false;
  #waiting: (() => void) | undefined;

  constructor(mountPoint: string) {
    this.mountPoint = mountPoint;
    this.#child = spawn('sh', ['-c', SCRIPT, 'farshore-watchdog', mountPoint], {
      stdio: ['pipe', 'pipe', 'ignore'],
      // Not in our process group: what is meant for us must not reach it.
      detached: true,
      cwd: '/',
    });
    this.#child.unref();
    this.#child.stdin?.on('error', () => undefined);
    this.#child.on('error', (error) => this.#push({ word: 'failed', detail: error.message }));
    const { stdout } = this.#child;
    if (stdout === null) return;
    const lines = createInterface({ input: stdout });
    lines.on('line', (line) => this.#push(parseAnswer(line)));
    lines.on('close', () => {
      this.#ended = true;
      this.#push({ word: 'ended', detail: 'the watchdog is gone' });
    });
  }

  async ready(): Promise<WatchdogAnswer> {
    return this.#next();
  }

  async freeze(options: { deadlineMs: number }): Promise<WatchdogAnswer> {
    this.#say(`freeze ${(Math.max(1, options.deadlineMs) / 1000).toFixed(3)}`);
    return this.#next();
  }

  async thaw(): Promise<WatchdogAnswer> {
    this.#say('thaw');
    const answer = await this.#next();
    this.release();
    return answer;
  }

  /** Answers `frozen` when it still is. */
  async check(): Promise<WatchdogAnswer> {
    this.#say('check');
    return await this.#next();
  }

  /** Answers `held` when it still is frozen, and stays so; the watchdog ends. */
  async hold(): Promise<WatchdogAnswer> {
    this.#say('hold');
    const answer = await this.#next();
    this.release();
    return answer;
  }

  /** Ends it; what it froze, it thaws. */
  release(): void {
    this.#child.stdin?.end();
  }

  #say(line: string): void {
    if (this.#child.stdin?.writable) this.#child.stdin.write(`${line}\n`);
  }

  async #next(): Promise<WatchdogAnswer> {
    for (;;) {
      const answer = this.#answers.shift();
      if (answer !== undefined) return answer;
      if (this.#ended) return { word: 'ended', detail: 'the watchdog is gone' };
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }

  #push(answer: WatchdogAnswer): void {
    this.#answers.push(answer);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}

const words: ReadonlySet<string> = new Set(['ready', 'frozen', 'failed', 'held', 'thawed', 'lost']);

function parseAnswer(line: string): WatchdogAnswer {
  const space = line.indexOf(' ');
  const word = space < 0 ? line : line.slice(0, space);
  const detail = space < 0 ? '' : line.slice(space + 1);
  if (!words.has(word)) return { word: 'failed', detail: line };
  return { word: word as WatchdogAnswer['word'], detail };
}
