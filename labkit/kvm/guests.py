"""The course's guests: what runs in the virtual machines of lab 04, as listings to read.

Each is a `Guest`; `print(guest)` shows its listing. None of them knows that it is a guest.
"""

from labkit.kvm.listing import Code, Guest, code

DEBUG_PORT = 0xE9  # where emulators have a printer for programmers: a byte written to it is a character
SERIAL_PORT = 0x3F8  # the first serial port of a PC

# The kernels below keep their own figures here, in the guest's memory.
SYSTEM_CALLS = 0x3000  # how many system calls they were asked for
FAULTS = 0x3004  # how many times a program did what it may not
CALL_EXIT, CALL_WRITE, CALL_COUNT = 0, 1, 2  # their three system calls, by number

ADD = Guest(
    "add",
    (
        code("""
1000  00 d8     add    al,bl        ; al becomes al + bl
1002  04 30     add    al,0x30      ; a number below 10 becomes its digit: 0x30 is '0'
1004  e6 e9     out    0xe9,al      ; the byte in al goes to port 0xe9
1006  b0 0a     mov    al,0xa       ; a new line
1008  e6 e9     out    0xe9,al
100a  f4        hlt                 ; wait for an interrupt, and none will come
"""),
    ),
    registers={"rax": 2, "rbx": 3},
)

HELLO = Guest(
    "hello",
    (
        code("""
1000  be 1b 10  mov    si,0x101b    ; si: where the text is
next:
1003  ac        lods   al,BYTE PTR ds:[si]    ; al: its next byte; si moves on
1004  84 c0     test   al,al
1006  74 12     je     done         ; a zero byte ends it
1008  88 c4     mov    ah,al        ; keep it: `in` needs al
wait:
100a  ba fd 03  mov    dx,0x3fd     ; the serial port's line status
100d  ec        in     al,dx
100e  a8 20     test   al,0x20      ; bit 5: it can take another byte
1010  74 f8     je     wait
1012  88 e0     mov    al,ah
1014  ba f8 03  mov    dx,0x3f8     ; what is written here is sent
1017  ee        out    dx,al
1018  eb e9     jmp    next
done:
101a  f4        hlt
text:
101b  68 65 6c 6c 6f 0a 00    .ascii "hello\\n", 0
"""),
    ),
)

# A guest kernel without a wall, as in the days of CP/M and early DOS: real mode, where nothing keeps a program from the
# hardware. To ask the kernel, a program calls address 5, as it would call a function of its own.
GATE = code("""
system_call:
0005  e9 fb 0f       jmp    0x1003         ; to the kernel's entry, wherever that is today
""")
REAL_KERNEL = code("""
1000  e9 fd 00       jmp    0x1100         ; begin the program
entry:
1003  ff 06 00 30    inc    WORD PTR ds:0x3000    ; one more system call; ax says which
1007  83 f8 01       cmp    ax,0x1
100a  74 06          je     write
100c  83 f8 02       cmp    ax,0x2
100f  74 06          je     count
1011  f4             hlt                   ; 0, exit: the program is done, and so is the machine
write:
1012  88 d8          mov    al,bl          ; 1, write: bl to the port
1014  e6 e9          out    0xe9,al
1016  c3             ret                   ; back into the program
count:
1017  a1 00 30       mov    ax,ds:0x3000   ; 2, count: how many calls there were so far
101a  c3             ret
""")

REAL_PROGRAM = code("""
again:
1100  b8 02 00  mov    ax,0x2       ; system call 2, count
1103  e8 ff ee  call   0x5          ; to the kernel
1106  e2 f8     loop   again        ; cx times
1108  b8 01 00  mov    ax,0x1       ; system call 1, write
110b  b3 48     mov    bl,0x48      ; 'H'
110d  e8 f5 ee  call   0x5
1110  b8 01 00  mov    ax,0x1
1113  b3 69     mov    bl,0x69      ; 'i'
1115  e8 ed ee  call   0x5
1118  b8 00 00  mov    ax,0x0       ; system call 0, exit
111b  e8 e7 ee  call   0x5
""")

# A guest kernel with a wall: 32-bit protected mode, the kernel in ring 0, its program in ring 3.
KERNEL = code("""
1000  31 d2                xor    edx,edx
1002  b9 74 01 00 00       mov    ecx,0x174         ; tell the processor where programs may enter the kernel:
1007  b8 08 00 00 00       mov    eax,0x8           ; by which segment (and with it, into which ring),
100c  0f 30                wrmsr
100e  b9 75 01 00 00       mov    ecx,0x175
1013  b8 00 70 00 00       mov    eax,0x7000        ; on which stack,
1018  0f 30                wrmsr
101a  b9 76 01 00 00       mov    ecx,0x176
101f  b8 32 10 00 00       mov    eax,0x1032        ; at which address: `entry`, and nowhere else
1024  0f 30                wrmsr
1026  ba 00 11 00 00       mov    edx,0x1100        ; begin the program at 0x1100,
102b  b9 00 60 00 00       mov    ecx,0x6000        ; on this stack,
1030  0f 35                sysexit                  ; in ring 3
entry:
1032  ff 05 00 30 00 00    inc    DWORD PTR ds:0x3000    ; one more system call; eax says which
1038  83 f8 01             cmp    eax,0x1
103b  74 06                je     write
103d  83 f8 02             cmp    eax,0x2
1040  74 07                je     count
1042  f4                   hlt                      ; 0, exit: the program is done, and so is the machine
write:
1043  88 d8                mov    al,bl             ; 1, write: bl to the port
1045  e6 e9                out    0xe9,al
1047  0f 35                sysexit                  ; back into the program: to edx, on the stack ecx, in ring 3
count:
1049  a1 00 30 00 00       mov    eax,ds:0x3000     ; 2, count: how many calls there were so far
104e  0f 35                sysexit
fault:
1050  ff 05 04 30 00 00    inc    DWORD PTR ds:0x3004    ; the program did what it may not
1056  b0 21                mov    al,0x21           ; '!'
1058  e6 e9                out    0xe9,al
105a  f4                   hlt                      ; it is not resumed
""")

PROGRAM = code("""
again:
1100  b8 02 00 00 00  mov    eax,0x2        ; system call 2, count
1105  e8 25 00 00 00  call   system_call
110a  4e              dec    esi            ; esi times
110b  75 f3           jne    again
110d  b8 01 00 00 00  mov    eax,0x1        ; system call 1, write
1112  b3 48           mov    bl,0x48        ; 'H'
1114  e8 16 00 00 00  call   system_call
1119  b8 01 00 00 00  mov    eax,0x1
111e  b3 69           mov    bl,0x69        ; 'i'
1120  e8 0a 00 00 00  call   system_call
1125  b8 00 00 00 00  mov    eax,0x0        ; system call 0, exit
112a  e8 00 00 00 00  call   system_call
system_call:
112f  5a              pop    edx            ; where to come back to,
1130  89 e1           mov    ecx,esp        ; and with which stack
1132  0f 34           sysenter              ; to the kernel
""")

TRESPASS = code("""
1100  b0 48     mov    al,0x48      ; 'H'
1102  e6 e9     out    0xe9,al      ; without asking the kernel
1104  f4        hlt
""")


def real_kernel(calls: int) -> Guest:
    """A kernel in real mode, whose program asks it `calls` times (1 to 65535) for the count, then writes "Hi"."""
    return Guest("kernel without a wall", (REAL_KERNEL, GATE, REAL_PROGRAM), registers={"rcx": calls})


def kernel(calls: int) -> Guest:
    """A kernel in ring 0, whose program in ring 3 asks it `calls` times (at least once) for the count, writes "Hi"."""
    return Guest("kernel with a wall", (KERNEL, PROGRAM), "protected", registers={"rsi": calls})


#: A program that uses the hardware itself, behind its kernel's back: without a wall, and with one.
REAL_TRESPASS = Guest("trespass without a wall", (REAL_KERNEL, GATE, TRESPASS))
WALLED_TRESPASS = Guest("trespass with a wall", (KERNEL, TRESPASS), "protected")

FOREVER = Guest("forever", (code("again:\n1000  eb fe     jmp    again        ; for ever"),))

#: An instruction that is none, and no kernel that could answer the fault: nor the fault at that, nor the third.
TRIPLE_FAULT = Guest("triple fault", (code("1000  0f 0b     ud2                 ; undefined on purpose"),), "protected")

#: Writes to a port for ever: to measure what an exit costs.
CHATTER = Guest("chatter", (code("again:\n1000  e6 e9     out    0xe9,al\n1002  eb fc     jmp    again"),))

HALT = Guest("halt", (code("1000  f4        hlt"),))

_TRIAL = """
1000  b0 07     mov    al,0x7
1002  e6 e9     out    0xe9,al
1004  f4        hlt
"""
_LONG_TRIAL: Code = code("""
1000  48 b8 00 00 00 00 07 00 00 00    movabs rax,0x700000000    ; a number of more than 32 bits
100a  48 c1 e8 20                      shr    rax,0x20
100e  e6 e9                            out    0xe9,al
1010  f4                               hlt
""")

#: One small guest for each mode of the processor. Each writes 7 to the debug port and halts, if that mode runs here.
TRIALS = {
    "real": Guest("trial of real mode", (code(_TRIAL),)),
    "protected": Guest("trial of protected mode", (code(_TRIAL),), "protected"),
    "long": Guest("trial of long mode", (_LONG_TRIAL,), "long"),
}
