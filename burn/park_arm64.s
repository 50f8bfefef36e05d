#include "textflag.h"

// func parkThread(flags uintptr) (result uintptr)
TEXT ·parkThread(SB),NOSPLIT,$0-16
	MOVD	flags+0(FP), R0
	MOVD	$0, R1	// the parent's stack, which is not used
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$220, R8	// clone
	SVC
	CBZ	R0, park
	MOVD	R0, result+8(FP)
	RET
park:
	MOVD	$0, R0	// of no descriptors, for ever
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$73, R8	// ppoll
	SVC
	B	park
