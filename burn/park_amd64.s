#include "textflag.h"

// func parkThread(flags uintptr) (result uintptr)
TEXT ·parkThread(SB),NOSPLIT,$0-16
	MOVQ	flags+0(FP), DI
	XORQ	SI, SI	// the parent's stack, which is not used
	XORQ	DX, DX
	XORQ	R10, R10
	XORQ	R8, R8
	MOVQ	$56, AX	// clone
	SYSCALL
	TESTQ	AX, AX
	JZ	park
	MOVQ	AX, result+8(FP)
	RET
park:
	MOVQ	$34, AX	// pause
	SYSCALL
	JMP	park
