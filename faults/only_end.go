package faults

import "reflect"

// onlyEnd refuses a change of anything but the end of a running fault, which its handle's Update then sees to.
func onlyEnd(parameter, what string, running, asked Fault) error {
	if reflect.DeepEqual(running, asked) {
		return nil
	}
	return &ParameterError{parameter, "a running " + what + " can change its duration alone; stop it and start another"}
}
