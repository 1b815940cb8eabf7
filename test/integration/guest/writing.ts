/**
 * What writes in the guest for as long as it is up. In Perl, for one process then does all of it: a shell starts a program for every
 * write and every pause, and under emulation that takes far more of the processor than the writes.
 */

/** put(mode, file, bytes, durable), syncfs(directory), noise(length), pause(seconds). The numbers are fsync and syncfs. */
const WORDS = `
sub put { open(my $f, $_[0], $_[1]) or return; syswrite($f, $_[2]); syscall(74, fileno($f)) if $_[3]; close($f) }
sub syncfs { open(my $d, "<", $_[0]) or return; syscall(306, fileno($d)) }
sub noise { open(my $f, "<", "/dev/urandom"); sysread($f, my $bytes, $_[0]); $bytes }
sub pause { select(undef, undef, undef, $_[0]) }
`;

/** A shell command that does this on and on, in the background. No single quotes; $i counts from 1. */
export function onAndOn(program: string): string {
  return `perl -e '${WORDS}for (my $i = 1; ; $i++) {${program}}' &`;
}
